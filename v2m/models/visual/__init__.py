"""Visual conditioners of the language model."""
