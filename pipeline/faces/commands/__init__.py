"""Commands about faces, and what they share."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable

from pipeline.text import plain


def say(text: str) -> None:
    """Print a line on standard error."""
    print(plain(text), file=sys.stderr, flush=True)


def number(what: str, allowed: Callable[[float], bool]) -> Callable[[str], float]:
    """Return a parser of the allowed numbers, for `type=`; `what` describes one in its error."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse
