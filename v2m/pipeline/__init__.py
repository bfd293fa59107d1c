"""Scoring of videos from input file to finished output."""
