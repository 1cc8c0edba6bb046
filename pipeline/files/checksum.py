"""Checksums in the JSON that we write, so that a flipped bit in it is noticed when it is read.

The checksum is a value of the JSON itself. It covers everything else there, in a canonical form: keys sorted, no white
space, ASCII. So it holds however another tool lays the text out. Files of earlier versions have none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.files.whole import to_json

CHECKSUM = "metadata_checksum"
_KIND = "blake2b:"
_MARKS = (f'"{CHECKSUM}"'.encode(), f'"{_KIND}'.encode())
"""One flipped bit spoils at most one of these: a file with either must have a checksum that fits."""


@dataclass(frozen=True)
class Unsealed:
    """JSON content without its checksum."""

    content: Any
    sealed: bool
    """True if the file has a checksum, or had one."""
    flaw: str
    """The reason why the content is not to be trusted; "" if its checksum fits, or if it never had one."""


def sealed(content: Mapping[str, Any], *within: str) -> dict[str, Any]:
    """Return JSON content with its checksum, held by the object below the keys `within`."""
    plain: dict[str, Any] = json.loads(to_json(content))  # as it will be read: keys are strings, tuples are lists
    holder = plain
    for key in within:
        holder = holder[key]
    holder.pop(CHECKSUM, None)
    holder[CHECKSUM] = _checksum(plain)
    return plain


def unseal(text: bytes, *within: str, is_known: bool = False) -> Unsealed:
    """Parse JSON that `sealed` made, or that has no checksum. Raises ValueError or RecursionError if it is not JSON.

    With `is_known` the checksum is dropped unseen: the same text was checked before.
    """
    content = json.loads(text)
    if not any(mark in text for mark in _MARKS):
        return Unsealed(content, False, "")
    holder = content
    for key in within:
        holder = holder.get(key) if isinstance(holder, dict) else None
    stored = holder.pop(CHECKSUM, None) if isinstance(holder, dict) else None
    fits = is_known or stored == _checksum(content)
    return Unsealed(content, True, "" if fits else "its checksum does not fit: a disk or another program changed it")


def _checksum(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return _KIND + hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
