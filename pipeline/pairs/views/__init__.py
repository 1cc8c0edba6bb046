"""Matched pictures handed over: tables of pairs and matches, and the files of COLMAP and hloc."""
