"""Training data: WebDataset shards, preparation, loading."""
