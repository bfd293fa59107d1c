"""Synthetic training clips whose music follows the picture."""
