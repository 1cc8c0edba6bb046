"""The version of reelgraph."""

__version__ = "0.1.0"
