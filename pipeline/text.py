"""Words of messages: plural forms."""

from __future__ import annotations


def plural(count: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun: "1 face", "2 faces"; `plural` for nouns that do not take an s."""
    return f"{count} {singular if count == 1 else plural or f'{singular}s'}"
