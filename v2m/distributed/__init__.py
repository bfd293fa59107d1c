"""Engines that apply the per-video functions of the commands on many processes and machines."""
