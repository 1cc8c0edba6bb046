"""Pairs of pictures in commands."""
