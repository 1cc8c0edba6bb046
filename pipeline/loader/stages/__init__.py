"""Stages of the loader: augmented pictures and their labels in a store."""
