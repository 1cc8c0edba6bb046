"""Recognisers: chips of faces in, vectors out."""
