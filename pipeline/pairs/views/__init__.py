"""Matched pictures shown and handed over: drawings, a panel of the report, tables, and the files of COLMAP and hloc."""
