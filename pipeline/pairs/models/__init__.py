"""Extractors of local features, by name. `pipeline.pairs.models.extractor` says what an extractor is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pipeline.models.card import ModelCard
from pipeline.pairs.models import alike, aliked, lightglue, sift, superglue, superpoint, xfeat
from pipeline.pairs.models.extractor import Choices, Extractor

EXTRACTORS: Mapping[str, Callable[[Choices], Extractor]] = {
    sift.CARD.name: sift.describe,
    **alike.EXTRACTORS,
    aliked.NAME: aliked.describe,
    xfeat.NAME: xfeat.describe,
    superpoint.NAME: superpoint.describe,
}
"""Makes the description of an extractor from the options of `keypoints`; reads no weights.

It raises ModelError for an option that does not fit the extractor."""

CARDS: Mapping[str, ModelCard] = {
    sift.CARD.name: sift.CARD,
    **alike.CARDS,
    aliked.CARD.name: aliked.CARD,
    xfeat.CARD.name: xfeat.CARD,
    superpoint.CARD.name: superpoint.CARD,
    superglue.CARD.name: superglue.CARD,
    **{network.card.name: network.card for network in (lightglue.LIGHTERGLUE, *lightglue.NETWORKS.values())},
}
"""Models of this domain."""
