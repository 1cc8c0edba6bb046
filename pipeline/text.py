"""Words of messages: the nearest valid name, plural forms, times, durations, sizes."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

_MOST_LISTED = 60
"""Most valid names in a message: a store may hold millions of pictures."""


def unknown(what: str, name: str, valid: Iterable[str]) -> str:
    """Return a line on a name that does not exist: ``unknown stage 'detcet'; did you mean 'detect'? valid: ...``."""
    names = sorted(valid)
    listed = ", ".join(names[:_MOST_LISTED]) + (f" and {len(names) - _MOST_LISTED} more" * (len(names) > _MOST_LISTED))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    lowered = {candidate.lower(): candidate for candidate in names}
    if name.lower() in lowered:
        near = [lowered[name.lower()]]
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"unknown {what} {name!r}{hint} valid: {listed or 'none'}"


_JOINERS = "\u200c\u200d"
"""Format characters that scripts and emoji need."""

_URL = re.compile(r"([a-z][a-z0-9+.-]*://)(\S+)", re.IGNORECASE)


def says(message: str, value: str) -> bool:
    """Return whether a message has this value in it as a whole: "at least 10" does not say 0."""
    return re.search(rf"(?<!\w)(?<!\d\.){re.escape(value)}(?!\w|\.\d)", message) is not None


def without_secrets(text: str) -> str:
    """Return text whose URLs have lost what may be a secret: user name and password, a query, a path with a `=`."""
    return _URL.sub(lambda found: found[1] + re.split("[?&#;=]", found[2].rpartition("@")[2])[0], text)


def plain(text: str) -> str:
    """Return one line of text as a terminal, a log or a page may show it, with control characters as `\\x1b`.

    Names come with files and stores of others. A control character could move the cursor, forge a line, or turn the
    direction of the text.
    """
    if text.isprintable():
        return text
    return "".join(c.encode("unicode_escape").decode() if _is_control(c) else c for c in text)


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in _JOINERS


def span(time_seconds: Sequence[float]) -> str:
    """The time range of frames: first and last."""
    return f"{clock(time_seconds[0])}-{clock(time_seconds[-1])}" if len(time_seconds) else "empty"


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS.mmm."""
    sign, total = ("-", -seconds) if seconds < 0 else ("", seconds)
    minutes, rest = divmod(round(float(total), 3), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{sign}{hours}:{minutes:02d}:{rest:06.3f}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(n_bytes: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def parse_seconds(text: str) -> float:
    """Return the seconds of "12.5", "MM:SS" or "HH:MM:SS.mmm". Raises ValueError for anything else."""
    match = re.fullmatch(r"(?:(?:(\d+):)?([0-5]?\d):)?(\d+(?:\.\d*)?)", text.strip())
    if match is None or (match[2] is not None and float(match[3]) >= 60):
        raise ValueError(f"{text!r} is not a time; write seconds (12.5) or HH:MM:SS.mmm (00:00:12.500)")
    return int(match[1] or 0) * 3600 + int(match[2] or 0) * 60 + float(match[3])


def plural_of(noun: str) -> str:
    """Return the plural of a noun: "faces", "matches"."""
    return f"{noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def plural(count: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 face", "2 faces", "3 matches"."""
    return f"{count} {singular if count == 1 else plural or plural_of(singular)}"
