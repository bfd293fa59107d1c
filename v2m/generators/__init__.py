"""Music generators: tags and video to music."""
