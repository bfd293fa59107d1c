"""Types, contracts, timing, errors and the mechanisms that every package shares."""
