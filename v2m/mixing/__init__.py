"""The mix: ducking, limiting, mastering and the output file."""
