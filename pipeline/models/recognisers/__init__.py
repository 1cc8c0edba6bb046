"""Recognisers: chips of faces in, vectors out."""

from __future__ import annotations

from pipeline.errors import ModelError
from pipeline.models.base import Device, Embedder
from pipeline.models.recognisers.options import RecogniserOptions
from pipeline.models.zoo import ModelCard
from pipeline.names import unknown

__all__ = ["RecogniserOptions", "create"]


def create(card: ModelCard, device: Device, options: RecogniserOptions) -> Embedder:
    """Return a recogniser that is ready to run.

    Raises ModelError: an option is unknown, weights or the engine are missing, or the device cannot be used.
    """
    from pipeline.models import clients
    from pipeline.models.crops import NORMALISATIONS
    from pipeline.models.recognisers.recogniser import Recogniser

    if options.normalization not in NORMALISATIONS:
        raise ModelError(unknown("normalization", options.normalization, NORMALISATIONS))
    clients.check(card, options.engine)
    return Recogniser(card, device, options)
