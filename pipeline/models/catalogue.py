"""Every model that the installed domains bring, by name: cards found in the entry point group `reelgraph.models`."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import cache

from pipeline.installed import load_group
from pipeline.models.card import ModelCard

GROUP = "reelgraph.models"


@cache
def cards() -> Mapping[str, ModelCard]:
    """Return the cards of all domains by name. Each entry point names a mapping of names to cards."""
    return ChainMap(*load_group(GROUP))
