"""Pairs of pictures: local features once per picture, matched in pairs, and verified by geometry."""
