"""Every model that the installed domains bring, by name: cards found in the entry point group `reelgraph.models`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from pipeline.models.card import ModelCard

GROUP = "reelgraph.models"


@cache
def cards() -> dict[str, ModelCard]:
    """Return the cards of all domains by name. Each entry point names a mapping of names to cards."""
    found: dict[str, ModelCard] = {}
    for point in entry_points(group=GROUP):
        found |= point.load()
    return found
