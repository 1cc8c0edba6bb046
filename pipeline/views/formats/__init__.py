"""Formats of boxes, of any axis that has them."""
