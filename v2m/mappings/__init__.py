"""State-dict and config mappings between published formats and ours, both ways."""
