"""The nearest valid name, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """One line for a name that does not exist: ``unknown stage 'detcet'; did you mean 'detect'? (detect, embed)``."""
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    lowered = {candidate.lower(): candidate for candidate in names}
    if name.lower() in lowered:
        near = [lowered[name.lower()]]
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} valid: {', '.join(names) or 'none'}"
