"""Commands about faces, and what they share."""

from __future__ import annotations

import sys

from pipeline.text import plain


def say(text: str) -> None:
    """Print a line on standard error."""
    print(plain(text), file=sys.stderr, flush=True)
