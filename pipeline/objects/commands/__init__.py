"""Commands of objects."""
