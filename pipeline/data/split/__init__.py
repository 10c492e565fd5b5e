"""The split into train, evaluation and test set."""
