"""Loader: batches of augmented pictures for training, the same bytes for any number of workers."""
