"""The web page: a video in, the same video with music out, in a browser. Run it with `v2m app`."""
