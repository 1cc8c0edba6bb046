"""The accuracy receipt: verification on labelled faces, stock DeepFace and we, per pair of detector and network.

    make accuracy                                     the faces of the data folder ($REELGRAPH_DATA/faces)
    make accuracy ARGS="--faces DIR --pairs FILE"     your own photographs
    make accuracy ARGS="--no-stock --detectors mtcnn --networks Dlib"
    make accuracy ARGS="--below lfw"                  photographs of one folder alone

With a file of labels (columns identity, path) the same vectors are asked who is who as well (identification.py).
The pairs file has columns path_a, path_b (below the folder of faces) and same (1 or 0). A photograph stands for the
largest face that is found in it; pairs without one on either side are left out, and counted. Every detector and
network runs whose weights are at hand (reelgraph models).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import identification
import numpy as np
import verification
from weights_at_hand import REPOSITORY, data_folder, link_weights

OURS = ("native", "native, flip", "deepface")
HOW = {
    "stock": "DeepFace.represent(photograph, max_faces=1, enforce_detection=False), a face of confidence 0 being none",
    "native": "this package, align: native",
    "native, flip": "the same, each vector averaged with that of the mirrored face",
    "deepface": "this package, align: deepface",
}
DETECTORS = ("mtcnn", "yunet", "retinaface", "centerface", "opencv")

Vectors = dict[str, np.ndarray]
"""By name of the photograph; photographs without a face are left out."""


@dataclass(frozen=True)
class Labelled:
    """Photographs and pairs of them."""

    folder: Path
    left: list[str]
    right: list[str]
    same: np.ndarray
    """bool (pairs,)."""
    identity: dict[str, str]
    """Of labelled photographs: whose each is. Empty without a file of labels."""

    @property
    def names(self) -> list[str]:
        return sorted({*self.left, *self.right, *self.identity})

    def photograph(self, name: str) -> np.ndarray:
        """uint8 (height, width, 3) RGB."""
        import cv2

        bgr = cv2.imread(str(self.folder / name))
        if bgr is None:
            raise SystemExit(f"cannot read {self.folder / name}, which the pairs file names")
        return np.ascontiguousarray(bgr[:, :, ::-1])


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    detector: str
    network: str
    how: str
    photographs: int
    with_face: int
    pairs: int
    pairs_with_faces: int
    seconds: float
    """All photographs, detection included."""
    by_metric: dict[str, dict[str, Any]]
    thresholds: dict[str, list[dict[str, Any]]]
    identification: dict[str, dict[str, Any]]
    """By distance; empty without labels."""


def main() -> None:
    chosen = arguments()
    faces = read_labelled(chosen.faces, chosen.pairs, chosen.labels, chosen.below)
    home = REPOSITORY / "runs" / "accuracy"
    link_weights(home, chosen.faces.parent / "weights" / "deepface")
    os.environ["DEEPFACE_HOME"] = str(home)
    rows = []
    for detector in chosen.detectors:
        for contestant in [our_rows, *([stock_rows] if chosen.stock else [])]:
            for row in contestant(detector, chosen.networks, faces):
                say(f"{row.detector} + {row.network}, {row.how}: {row.seconds:.0f} s")
                rows.append(row)
    if not rows:
        raise SystemExit("nothing could run; see the reasons above")
    show(rows)
    if chosen.json:
        content = {"how": HOW, "faces": str(chosen.faces), "rows": [asdict(row) for row in rows]}
        chosen.json.write_text(json.dumps(content, indent=1) + "\n")
        say(f"wrote {chosen.json}")


def arguments() -> argparse.Namespace:
    from pipeline.faces.models import zoo

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=data_folder() / "faces", help="folder of photographs")
    parser.add_argument("--pairs", type=Path, help="default: pairs.csv or pairs_dev.csv in that folder")
    parser.add_argument("--labels", type=Path, help="default: labels.csv or labels_dev.csv in that folder")
    parser.add_argument("--below", default="", metavar="FOLDER", help="only photographs below this folder of `faces`")
    parser.add_argument("--detectors", type=_names("detector"), default=DETECTORS, help="separated by commas")
    parser.add_argument("--networks", type=_names("recogniser"), default=zoo.names("recogniser"), help="by commas")
    parser.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True, help="run DeepFace as well")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there")
    return parser.parse_args()


def _names(kind: Any) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        from pipeline.errors import ModelError
        from pipeline.faces.models import zoo

        try:
            return tuple(zoo.card(name.strip(), kind).name for name in text.split(","))
        except ModelError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return parse


def read_labelled(folder: Path, pairs: Path | None, labels: Path | None, below: str = "") -> Labelled:
    candidates = [pairs] if pairs else [folder / "pairs.csv", folder / "pairs_dev.csv"]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise SystemExit(f"no pairs file: {' or '.join(map(str, candidates))}; name one with --pairs")
    with found.open() as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"path_a", "path_b", "same"} <= set(rows[0]):
        raise SystemExit(f"{found} must have columns path_a, path_b and same")
    part = f"{below.rstrip('/')}/" if below else ""
    rows = [row for row in rows if row["path_a"].startswith(part) and row["path_b"].startswith(part)]
    same = np.array([row["same"] == "1" for row in rows])
    if same.all() or not same.any():
        raise SystemExit(
            f"{found} must have pairs of one person and pairs of two" + (f" below {below}" if below else "")
        )
    left, right = [row["path_a"] for row in rows], [row["path_b"] for row in rows]
    identity = identification.read_labels(folder, labels)
    return Labelled(folder, left, right, same, {name: who for name, who in identity.items() if name.startswith(part)})


# --- ours -------------------------------------------------------------------------------------------------------------


def our_rows(detector: str, networks: tuple[str, ...], faces: Labelled) -> Iterator[Row]:
    from pipeline.errors import ModelError
    from pipeline.faces.models import create_detector, create_embedder
    from pipeline.machine.device import Device

    device = Device(threads=len(os.sched_getaffinity(0)))
    for align in ("native", "deepface"):
        try:
            finder = create_detector(detector, device, align=align)
        except ModelError as error:
            say(f"{detector}, align {align}, left out: {error}")
            continue
        found, detection = timed(lambda finder=finder: detected(finder, faces))
        for network in networks:
            for how in (how for how in OURS if how.startswith(align)):
                try:
                    embedder = create_embedder(network, device, align=align, flip="flip" in how)
                except ModelError as error:
                    say(f"{network}, {how}, left out: {error}")
                    continue
                vectors, seconds = timed(lambda embedder=embedder, found=found: embedded(embedder, found, faces))
                yield judged(detector, network, how, vectors, faces, detection + seconds)


def detected(finder: Any, faces: Labelled) -> dict[str, Any]:
    """The largest face of each photograph, as Faces of one."""
    largest = {}
    for name in faces.names:
        found = finder.detect([faces.photograph(name)])
        if len(found.frame) == 0:
            continue
        at = slice(best := int(found.box[:, 2:].prod(axis=1).argmax()), best + 1)
        largest[name] = replace(
            found,
            frame=found.frame[at],
            box=found.box[at],
            landmarks=found.landmarks[at],
            confidence=found.confidence[at],
            rank=None,
        )
    return largest


def embedded(embedder: Any, found: dict[str, Any], faces: Labelled) -> Vectors:
    return {
        name: embedder.embed(embedder.chips([faces.photograph(name)], face))[0].astype(np.float64)
        for name, face in found.items()
    }


# --- DeepFace's own ---------------------------------------------------------------------------------------------------


def stock_rows(detector: str, networks: tuple[str, ...], faces: Labelled) -> Iterator[Row]:
    from pipeline.errors import ModelError
    from pipeline.faces.models import zoo
    from pipeline.models.weights import weights_files

    # The same files of weights as ours; mtcnn and dlib bring their own library whatever the engine.
    os.environ.setdefault("DEEPFACE_BACKEND_ENGINE", "onnx")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for network in networks:
        try:
            for name in (detector, network):
                weights_files(zoo.card(name))  # DeepFace would try to download what is not here
            vectors, seconds = timed(lambda network=network: represented(detector, network, faces))
        except (ModelError, ImportError, ValueError) as error:
            say(f"stock DeepFace, {detector} + {network}, left out: {str(error).splitlines()[0]}")
            continue
        row = judged(detector, network, "stock", vectors, faces, seconds)
        yield replace(row, identification=identification.of_deepface(detector, network, faces.folder, faces.identity))


def represented(detector: str, network: str, faces: Labelled) -> Vectors:
    from deepface import DeepFace

    vectors = {}
    for name in faces.names:
        bgr = np.ascontiguousarray(faces.photograph(name)[:, :, ::-1])
        (face,) = DeepFace.represent(
            bgr, model_name=network, detector_backend=detector, max_faces=1, enforce_detection=False
        )
        if face["face_confidence"] > 0:
            vectors[name] = np.array(face["embedding"])
    return vectors


# --- figures ----------------------------------------------------------------------------------------------------------


def judged(detector: str, network: str, how: str, vectors: Vectors, faces: Labelled, seconds: float) -> Row:
    from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS

    seen = np.array([a in vectors and b in vectors for a, b in zip(faces.left, faces.right, strict=True)])
    pairs = [(a, b) for a, b, both in zip(faces.left, faces.right, seen, strict=True) if both]
    by_metric, thresholds = {}, {}
    same = faces.same[seen]
    if same.any() and not same.all():
        left, right = (np.stack([vectors[pair[side]] for pair in pairs]) for side in (0, 1))
        for metric in verification.METRICS:
            distance = verification.distances(left, right, metric)
            default = DEEPFACE_THRESHOLDS[network][metric]
            by_metric[metric] = asdict(verification.verify(distance, same, default))
            thresholds[metric] = [asdict(choice) for choice in verification.thresholds(distance, same)]
    counts = (len(faces.names), len(vectors), len(seen), int(seen.sum()))
    align = "deepface" if how in ("stock", "deepface") else "native"
    who = {} if how == "stock" else identification.of_vectors(network, align, vectors, faces.identity)
    return Row(detector, network, how, *counts, seconds, by_metric, thresholds, who)


def show(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 150)
    table = Table(title=f"Verification, {rows[0].pairs} pairs of {rows[0].photographs} photographs")
    columns = ("detector", "network", "", "pairs", "distance", "ROC AUC", "TAR at 1% FAR", "accuracy at default", "s")
    for column in columns:
        table.add_column(column, justify="left" if column in ("detector", "network", "", "distance") else "right")
    for row in rows:
        for index, (metric, found) in enumerate(row.by_metric.items()):
            names = [row.detector, row.network, row.how, str(row.pairs_with_faces)] if index == 0 else [""] * 4
            figures = [f"{found['auc']:.5f}", f"{found['true_accepts_1_percent']:.3f}"]
            default = f"{found['default_accuracy']:.3f} ({found['default_threshold']:g})"
            table.add_row(*names, metric, *figures, default, f"{row.seconds:.0f}" if index == 0 else "")
        table.add_section()
    console.print(table)
    if any(row.identification for row in rows):
        identification.show(console, [(row.detector, row.network, row.how, row.identification) for row in rows])
    ours = [row for row in rows if row.how != "stock"]
    if ours:
        _show_thresholds(console, ours)
    for how, words in HOW.items():
        console.print(f"[bold]{how}[/bold]: {words}.", highlight=False)


def _show_thresholds(console: Any, rows: list[Row]) -> None:
    """What the thresholds should be."""
    from rich.table import Table

    table = Table(
        title="Thresholds: chosen on all pairs (in-sample); the last column: chosen on half, tried on the other"
    )
    for column in ("detector", "network", "", "distance", "rule", "threshold", "TAR / FAR / accuracy", "other half"):
        table.add_column(column, justify="right" if column == "threshold" else "left")
    for row in rows:
        for metric, choices in row.thresholds.items():
            for choice in choices:
                rates = [f"{choice[name]:.3f}" for name in ("true_accepts", "false_accepts", "accuracy")]
                names = ("true_accepts", "false_accepts", "accuracy")
                others = [f"{choice[f'other_half_{name}']:.3f}" for name in names]
                table.add_row(
                    *(row.detector, row.network, row.how, metric, choice["rule"], f"{choice['threshold']:.4f}"),
                    " / ".join(rates),
                    " / ".join(others),
                )
        table.add_section()
    console.print(table)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
