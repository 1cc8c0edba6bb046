"""Packages beyond the base install that some detectors need."""

from __future__ import annotations

import importlib.util

from pipeline.errors import ModelError
from pipeline.models.card import ModelCard


def need(card: ModelCard) -> None:
    """Raise ModelError, with the command that helps, if a model's engine is not installed. Imports nothing."""
    if card.requires and importlib.util.find_spec(card.engine) is None:
        raise ModelError(
            f"detector {card.name!r} needs the package {card.engine!r}, which is not installed; run: "
            f"pip install {' '.join(card.requires)}"
        )
