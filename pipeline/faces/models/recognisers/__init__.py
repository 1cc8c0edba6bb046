"""Recognisers: chips of faces in, vectors out."""

from __future__ import annotations

from pipeline.errors import ModelError
from pipeline.faces.models.base import Embedder
from pipeline.faces.models.recognisers.options import RecogniserOptions
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.text import unknown

__all__ = ["RecogniserOptions", "create"]


def create(card: ModelCard, device: Device, options: RecogniserOptions) -> Embedder:
    """Return a recogniser that is ready to run.

    Raises ModelError: an option is unknown, weights or the engine are missing, or the device cannot be used.
    """
    from pipeline.faces.models import clients
    from pipeline.faces.models.crops import NORMALISATIONS
    from pipeline.faces.models.recognisers.recogniser import Recogniser

    if options.normalization not in NORMALISATIONS:
        raise ModelError(unknown("normalization", options.normalization, NORMALISATIONS))
    clients.check(card, options.engine)
    return Recogniser(card, device, options)
