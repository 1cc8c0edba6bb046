"""Who is who among labelled photographs: a gallery of the first half of everybody's, and the rest as probes.

Closed set: everybody asked for is in the gallery. Open set: the same probes, with the gallery's pictures of that person
left out each time, so that whoever is named is named wrongly.
"""

from __future__ import annotations

import contextlib
import csv
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("cosine", "euclidean", "euclidean_l2")
DEEPFACE_METRICS = ("cosine",)
"""Each one runs detector and network on every probe again."""

Vectors = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Figures:
    """Of one distance at its default threshold. Shares of the probes, those without a face included."""

    threshold: float
    gallery: int
    """Pictures with a face."""
    probes: int
    rank_1: float
    """Closed set: the nearest of the gallery is of the right person, near enough or not."""
    named_rightly: float
    """Closed set: and it is near enough."""
    named_wrongly: float
    """Closed set: the nearest is near enough, and somebody else's."""
    false_accepts: float
    """Open set: somebody is near enough who is none of the gallery."""
    strict_threshold: float
    """Open set: the largest that accepts at most 1% of the probes wrongly."""
    strict_named_rightly: float
    """Closed set, at that threshold."""


def read_labels(folder: Path, labels: Path | None) -> dict[str, str]:
    """Whose each photograph is, by its path below the folder; empty where there is no file of labels."""
    candidates = [labels] if labels else [folder / "labels.csv", folder / "labels_dev.csv"]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        if labels:
            raise SystemExit(f"no file of labels: {labels}")
        return {}
    with found.open() as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"path", "identity"} <= set(rows[0]):
        raise SystemExit(f"{found} must have columns path and identity")
    return {row["path"]: row["identity"] for row in rows}


def halves(identity: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Pictures of the gallery, and probes: of each person the first half by name, and the rest; who has a single
    picture is none of the gallery."""
    by_person: dict[str, list[str]] = {}
    for path in sorted(identity):
        by_person.setdefault(identity[path], []).append(path)
    gallery = [path for paths in by_person.values() for path in paths[: len(paths) // 2]]
    return gallery, [path for path in sorted(identity) if path not in set(gallery)]


def of_vectors(network: str, align: str, vectors: Vectors, identity: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Of this package: a photograph stands for its largest face, as `reelgraph find` takes it."""
    from pipeline.faces.models.recognisers.thresholds import thresholds
    from pipeline.faces.people.matching import Matcher, checked_metric

    if not identity:
        return {}
    gallery, probes = halves(identity)
    gallery = [path for path in gallery if path in vectors]
    seen = [path for path in probes if path in vectors]
    people = [identity[path] for path in gallery]
    found = {}
    for metric in METRICS:
        matcher = Matcher(np.stack([vectors[path] for path in gallery]), checked_metric(metric))
        distance = matcher.distances(np.stack([vectors[path] for path in seen]))
        ranked = {path: list(zip(people, row.tolist(), strict=True)) for path, row in zip(seen, distance, strict=True)}
        found[metric] = asdict(judged(ranked, probes, identity, thresholds(network, align)[metric], len(gallery)))
    return found


def of_deepface(detector: str, network: str, folder: Path, identity: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`DeepFace.find` itself, on a folder of links to the gallery's pictures; of a probe its largest face counts."""
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
            ranked, rows = {}, 0
            for path in probes:
                with contextlib.suppress(ValueError):  # no face found
                    tables = DeepFace.find(
                        str(folder / path), place, model_name=network, detector_backend=detector, silent=True,
                        distance_metric=metric, similarity_search=True, return_type="dict",
                    )  # fmt: skip
                    table = max(tables, key=lambda rows: rows[0]["source_w"] * rows[0]["source_h"])
                    rows = sum(np.isfinite(row["distance"]) for row in table)
                    ranked[path] = [
                        (identity[os.path.relpath(row["identity"], place)], row["distance"]) for row in table
                    ]
            found[metric] = asdict(judged(ranked, probes, identity, find_threshold(network, metric), int(rows)))
    return found


def judged(
    ranked: Mapping[str, Sequence[tuple[str, float]]],
    probes: Sequence[str],
    identity: Mapping[str, str],
    threshold: float,
    gallery: int,
) -> Figures:
    """`ranked`: of each probe with a face whose each row of the gallery is, and how far."""
    known = {person for rows in ranked.values() for person, _ in rows}
    closed = [path for path in probes if identity[path] in known]
    strangers = [
        min((distance for other, distance in ranked.get(path, ()) if other != identity[path]), default=np.inf)
        for path in probes
    ]
    strict = float(np.nextafter(sorted(strangers)[len(probes) // 100], -np.inf))
    first = right = wrong = strictly = 0
    for path in closed:
        rows = ranked.get(path)
        if rows is None:
            continue
        nearest, distance = min(rows, key=lambda row: row[1])
        first += nearest == identity[path]
        right += nearest == identity[path] and distance <= threshold
        wrong += nearest != identity[path] and distance <= threshold
        strictly += nearest == identity[path] and distance <= strict
    shares = [count / len(closed) for count in (first, right, wrong)]
    accepted = float(np.mean(np.array(strangers) <= threshold))
    return Figures(threshold, gallery, len(probes), *shares, accepted, strict, strictly / len(closed))


def show(console: Any, rows: Sequence[tuple[str, str, str, Mapping[str, Mapping[str, Any]]]]) -> None:
    from rich.table import Table

    table = Table(title="Identification: the first half of everybody's pictures is the gallery, the rest are probes")
    columns = ("detector", "network", "", "gallery", "probes", "distance", "threshold", "rank 1", "named rightly")
    columns = (*columns, "wrongly", "false accepts", "rightly at 1%")
    for column in columns:
        table.add_column(column, justify="left" if column in ("detector", "network", "", "distance") else "right")
    for detector, network, how, by_metric in rows:
        for index, (metric, found) in enumerate(by_metric.items()):
            names = [detector, network, how, str(found["gallery"]), str(found["probes"])] if index == 0 else [""] * 5
            shares = [found[name] for name in ("rank_1", "named_rightly", "named_wrongly", "false_accepts")]
            strict = f"{found['strict_named_rightly']:.3f} ({found['strict_threshold']:.3g})"
            table.add_row(*names, metric, f"{found['threshold']:g}", *(f"{share:.3f}" for share in shares), strict)
        table.add_section()
    console.print(table)
    console.print(
        "[bold]Identification[/bold]: stock is DeepFace.find on the gallery's folder (it enters every face of a "
        "picture; of a probe its largest face counts); ours takes the largest face of each. Rank 1: the nearest is the "
        "right person's; named rightly, wrongly: and it is within the threshold. False accepts: the person's own "
        "pictures are left out of the gallery, and somebody is named. Rightly at 1%: with the threshold (in brackets, "
        "in-sample) that accepts at most 1% so.",
        highlight=False,
    )
