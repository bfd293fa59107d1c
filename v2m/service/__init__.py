"""The HTTP service: jobs that survive a restart, over the page's worker process."""
