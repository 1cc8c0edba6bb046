"""Pairs of pictures, shown: their matches drawn, and their part of a report."""
