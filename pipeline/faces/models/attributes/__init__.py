"""Attributes of a face (age, gender, emotion, race) and whether it is a live one."""
