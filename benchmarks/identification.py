"""Identification among labelled photographs: a gallery of the first half of each person's, and the rest as probes.

Closed set: everyone asked for is in the gallery. Open set: the same probes, with the gallery's pictures of that person
left out each time, so that every name given is wrong.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from verification import METRICS, at_false_accepts

DEEPFACE_METRICS = ("cosine",)
"""Distances tried with DeepFace: each one runs detector and network on every probe again."""
TITLE = "Identification: the first half of each person's pictures is the gallery, the rest are probes"
COLUMNS = (
    "gallery", "probes", "distance", "threshold:g", "rank 1=rank_1:.3f", "named rightly=named_rightly:.3f",
    "wrongly=named_wrongly:.3f", "false accepts=false_accepts:.3f", "rightly at 1%=strict_named_rightly:.3f",
    "threshold at 1%=strict_threshold:.3g",
)  # fmt: skip
HOW = {
    "gallery, probes": "numbers of pictures (of the gallery's, those with a face); shares are those of all probes, "
    "also of those without a face",
    "stock": "DeepFace.find on the gallery's folder: it enters every face of a picture; of a probe its largest face "
    "counts. Ours takes the largest face of each",
    "rank 1": "closed set: the nearest of the gallery is the right person's",
    "named rightly, wrongly": "closed set: and it is within the threshold",
    "false accepts": "open set: another person is within the threshold",
    "threshold at 1%": "open set: the largest that accepts at most 1% of the probes wrongly (in-sample); rightly at "
    "1%: closed set, with that",
}


def halves(identity: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the pictures of the gallery, each person's first half by name, and the rest, the probes; a person with a
    single picture is not in the gallery."""
    by_person: dict[str, list[str]] = {}
    for path in sorted(identity):
        by_person.setdefault(identity[path], []).append(path)
    gallery = [path for paths in by_person.values() for path in paths[: len(paths) // 2]]
    return gallery, [path for path in sorted(identity) if path not in set(gallery)]


def of_vectors(
    network: str, align: str, vectors: Mapping[str, np.ndarray], identity: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Judge this package: a photograph stands for its largest face, as `reelgraph find` takes it."""
    from pipeline.faces.models.recognisers.thresholds import thresholds
    from pipeline.faces.people.matching import Matcher, checked_metric

    if not identity:
        return {}
    gallery, probes = halves(identity)
    gallery = [path for path in gallery if path in vectors]
    seen = [path for path in probes if path in vectors]
    found = {}
    for metric in METRICS:
        matcher = Matcher(np.stack([vectors[path] for path in gallery]), checked_metric(metric))
        distance = matcher.distances(np.stack([vectors[path] for path in seen])).tolist()
        people = [identity[path] for path in gallery]
        ranked = {path: list(zip(people, row, strict=True)) for path, row in zip(seen, distance, strict=True)}
        found[metric] = judged(ranked, probes, identity, thresholds(network, align)[metric], len(gallery))
    return found


def of_deepface(detector: str, network: str, folder: Path, identity: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Judge `DeepFace.find` itself, on a folder of links to the gallery's pictures; of a probe its largest face
    counts."""
    from deepface import DeepFace
    from deepface.modules.verification import find_threshold

    if not identity:
        return {}
    gallery, probes = halves(identity)
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for path in gallery:
            link = Path(place) / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to((folder / path).resolve())
        for metric in DEEPFACE_METRICS:
            ranked, entered = {}, 0
            for path in probes:
                with contextlib.suppress(ValueError):  # no face found
                    tables = DeepFace.find(
                        str(folder / path), place, model_name=network, detector_backend=detector, silent=True,
                        distance_metric=metric, similarity_search=True, return_type="dict",
                    )  # fmt: skip
                    table = max(tables, key=lambda rows: rows[0]["source_w"] * rows[0]["source_h"])
                    entered = int(sum(np.isfinite(row["distance"]) for row in table))
                    names = [identity[os.path.relpath(row["identity"], place)] for row in table]
                    ranked[path] = list(zip(names, [row["distance"] for row in table], strict=True))
            found[metric] = judged(ranked, probes, identity, find_threshold(network, metric), entered)
    return found


def judged(
    ranked: Mapping[str, Sequence[tuple[str, float]]],
    probes: Sequence[str],
    identity: Mapping[str, str],
    threshold: float,
    gallery: int,
) -> dict[str, Any]:
    """Return the figures. `ranked`: for each probe with a face, each row of the gallery: its person and distance."""
    known = {person for rows in ranked.values() for person, _ in rows}
    closed = [path for path in probes if identity[path] in known]
    strangers = np.array([
        min((distance for other, distance in ranked.get(path, ()) if other != identity[path]), default=np.inf)
        for path in probes
    ])  # fmt: skip
    strict = at_false_accepts(strangers, 0.01)
    nearest = [(path, *min(ranked[path], key=lambda row: row[1])) for path in closed if path in ranked]
    right = np.array([identity[path] == person for path, person, _ in nearest], bool)
    distance = np.array([distance for _, _, distance in nearest])
    near = distance <= threshold
    shares = {
        "rank_1": right, "named_rightly": right & near, "named_wrongly": ~right & near,
        "strict_named_rightly": right & (distance <= strict),
    }  # fmt: skip
    return {
        "threshold": threshold, "gallery": gallery, "probes": len(probes), "strict_threshold": strict,
        "false_accepts": float((strangers <= threshold).mean()),
        **{name: float(hits.sum()) / len(closed) for name, hits in shares.items()},
    }  # fmt: skip
