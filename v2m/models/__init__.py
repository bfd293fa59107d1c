"""Models that this project trains: language model, conditioners, adapters, losses."""
