"""Pairs in a report: the pictures that match, their groups, and the matches of some pairs drawn."""
