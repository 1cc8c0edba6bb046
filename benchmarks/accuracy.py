"""The accuracy receipt: verification on labelled faces, stock DeepFace and we, per pair of detector and network.

    make accuracy                                     the faces of the data folder ($REELGRAPH_DATA/faces)
    make accuracy ARGS="--faces DIR --pairs FILE"     your own photographs
    make accuracy ARGS="--no-stock --detectors mtcnn --networks Dlib"
    make accuracy ARGS="--below lfw"                  photographs of one folder alone
    make accuracy ARGS="--lfw FOLDER"                 LFW's own protocol, by its pairs.txt (benchmarks/lfw.py)
    make accuracy ARGS="--hard 20 --faces DIR"        instead: small, cut and turned faces that the detectors find

With a file of labels (columns identity, path) the same vectors are asked who is who as well: the first half of each
person's photographs is a gallery, the rest are probes. Closed set: everyone asked for is in the gallery. Open set: the
same probes, with the gallery's pictures of that person left out each time, so that every name given is wrong.

The pairs file has columns path_a, path_b (below the folder of faces) and same (1 or 0). A photograph stands for the
largest face that is found in it; pairs without a face on either side are left out, and counted. Every detector and
network runs if its weights are available (reelgraph models).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import harness
import lfw
import numpy as np
import verification
from harness import REPOSITORY, Rows, data_folder, explain, labels_in, link_weights, parser, say, show, timed

OURS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("native", {}),
    "native, flip": ("native", {"flip": True}),
    "two_views": ("native", {"align": "two_views"}),
    "deepface": ("deepface", {"align": "deepface"}),
}
"""The alignment of the detector, and the options of the network."""
HOW = {
    "stock": "DeepFace.represent(photograph, max_faces=1, enforce_detection=False); a face of confidence 0 means none",
    "native": "this package, align: native",
    "native, flip": "the same, each vector averaged with that of the mirrored face",
    "two_views": "the mean with the vector of a second chip, by dlib's five points (embed.align: two_views)",
    "deepface": "this package, align: deepface",
}
DETECTORS = ("mtcnn", "yunet", "retinaface", "centerface", "opencv")
NAMES = ("detector", "network", "=how")
VERIFICATION_COLUMNS = (
    *NAMES, "pairs=pairs_with_faces", "distance", "ROC AUC=auc:.5f", "TAR at 1% FAR=true_accepts_1_percent:.3f",
    "accuracy at default=default_accuracy:.3f", "default=default_threshold:g", "s=seconds:.0f",
)  # fmt: skip
THRESHOLD_COLUMNS = (
    *NAMES, "distance", "rule", "threshold:.4f", "TAR=true_accepts:.3f", "FAR=false_accepts:.3f", "accuracy:.3f",
    "other half: TAR=other_half_true_accepts:.3f", "FAR =other_half_false_accepts:.3f",
    "accuracy =other_half_accuracy:.3f",
)  # fmt: skip

DEEPFACE_METRICS = ("cosine",)
"""Distances tried with `DeepFace.find`: each one runs detector and network on every probe again."""
IDENTIFICATION_COLUMNS = (
    *NAMES, "gallery", "probes", "distance", "threshold:g", "rank 1=rank_1:.3f", "named rightly=named_rightly:.3f",
    "wrongly=named_wrongly:.3f", "false accepts=false_accepts:.3f", "rightly at 1%=strict_named_rightly:.3f",
    "threshold at 1%=strict_threshold:.3g",
)  # fmt: skip
IDENTIFICATION_HOW = {
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

HARD = {
    "face of 36 px": {"face": 36}, "22 px": {"face": 22}, "cut at the side by 30%": {"cut": 0.3}, "40%": {"cut": 0.4},
    "50%": {"cut": 0.5}, "turned by 45°": {"turn": 45}, "90°": {"turn": 90}, "180°": {"turn": 180},
}  # fmt: skip
"""Changes of a photograph, by the name of their column."""
FACE_SHARE = 0.36
"""Width of the face in the middle of a picture of LFW, as a share of the picture's."""
HARD_COLUMNS = (
    "detector", "as it is", *HARD, "upright=upright:.3f", "boxes elsewhere=elsewhere",
    "ms per picture=milliseconds:.1f",
)  # fmt: skip
HARD_HOW = {
    "as it is, ...": "share of the pictures in which the face in their middle is found",
    "cut": "by the left and the right edge, in turn",
    "upright": "of the faces found in all columns: eyes by which the chip is upright, to 30 degrees",
    "boxes elsewhere": "in all columns; bystanders are among them",
}

Vectors = dict[str, np.ndarray]
"""Vectors by name of the photograph; photographs without a face are left out."""


@dataclass(frozen=True)
class Labelled:
    """Photographs and pairs of them."""

    folder: Path
    left: list[str]
    right: list[str]
    same: np.ndarray
    """bool (pairs,)."""
    identity: dict[str, str]
    """Person of each labelled photograph. Empty without a file of labels."""
    lfw: lfw.Pairs | None = None
    """The pairs by LFW's protocol."""

    @property
    def names(self) -> list[str]:
        return sorted({*self.left, *self.right, *self.identity})

    def photograph(self, name: str) -> np.ndarray:
        """Return uint8 (height, width, 3) RGB."""
        import cv2

        bgr = cv2.imread(str(self.folder / name))
        if bgr is None:
            lfw.refuse(f"cannot read {self.folder / name}, which the pairs file names")
        return np.ascontiguousarray(bgr[:, :, ::-1])


def main() -> None:
    from pipeline.errors import ModelError
    from pipeline.faces.models import zoo

    def cards(kind: Any, text: str) -> tuple[str, ...]:
        try:
            return tuple(zoo.card(name.strip(), kind).name for name in text.split(","))
        except ModelError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    options = parser(__doc__)
    options.add_argument("--faces", type=Path, default=data_folder() / "faces", help="folder of photographs")
    options.add_argument("--pairs", type=Path, help="default: pairs.csv or pairs_dev.csv in that folder")
    options.add_argument("--labels", type=Path, help="default: labels.csv or labels_dev.csv in that folder")
    options.add_argument("--below", default="", metavar="FOLDER", help="only photographs below this folder of `faces`")
    options.add_argument("--lfw", type=Path, metavar="FOLDER", help="LFW's protocol: pairs.txt and a folder per person")
    options.add_argument("--detectors", type=partial(cards, "detector"), default=DETECTORS, help="by commas")
    options.add_argument(
        "--networks", type=partial(cards, "recogniser"), default=zoo.names("recogniser"), help="by commas"
    )
    options.add_argument("--stock", action=argparse.BooleanOptionalAction, default=True, help="run DeepFace as well")
    options.add_argument(
        "--hard", type=int, metavar="N",
        help="only show what detectors find in each N-th labelled photograph (LFW's form: a face in the middle)",
    )  # fmt: skip
    options.add_argument("--json", type=Path, metavar="PATH", help="write all figures there")
    chosen = options.parse_args()
    if chosen.lfw and (chosen.labels or chosen.below):
        lfw.refuse("--labels and --below have no effect with --lfw; leave them out")
    faces = read_lfw(chosen.lfw, chosen.pairs) if chosen.lfw else read_labelled(
        chosen.faces, chosen.pairs, chosen.labels, chosen.below
    )  # fmt: skip
    home = REPOSITORY / "runs" / "accuracy"
    link_weights(home, chosen.faces.parent / "weights" / "deepface")
    os.environ["DEEPFACE_HOME"] = str(home)
    rows: Rows = []
    if chosen.hard:
        names = sorted(faces.identity)[:: chosen.hard]
        photographs = [faces.photograph(name) for name in names]
        rows = [hard_row(name, turned, photographs) for name in chosen.detectors for turned in (False, True)]
        show(f"Faces found, {len(names)} photographs", HARD_COLUMNS, rows, HARD_HOW)
        if chosen.json:
            harness.write_json(chosen.json, {"how": HARD_HOW, "faces": str(chosen.faces), "rows": rows})
        return
    for detector in chosen.detectors:
        for contestant in [our_rows, *([stock_rows] if chosen.stock else [])]:
            for row in contestant(detector, chosen.networks, faces):
                say(f"{row['detector']} + {row['network']}, {row['how']}: {row['seconds']:.0f} s")
                rows.append(row)
    if not rows:
        raise SystemExit("nothing could run; see the reasons above")

    def lines(key: str) -> Rows:
        return [row | {"distance": metric} | found for row in rows for metric, found in row[key].items()]

    if faces.lfw:
        show_lfw(lines("by_metric"), chosen.networks)
        if chosen.json:
            harness.write_json(chosen.json, {"how": HOW | lfw.HOW, "lfw": str(chosen.lfw), "rows": rows})
        return
    title = f"Verification, {rows[0]['pairs']} pairs of {rows[0]['photographs']} photographs"
    show(title, VERIFICATION_COLUMNS, lines("by_metric"))
    if any(row["identification"] for row in rows):
        title = "Identification: the first half of each person's pictures is the gallery, the rest are probes"
        show(title, IDENTIFICATION_COLUMNS, lines("identification"), IDENTIFICATION_HOW)
    choices = [
        row | {"distance": metric} | choice
        for row in rows
        if row["how"] != "stock"
        for metric, several in row["thresholds"].items()
        for choice in several
    ]
    if choices:
        title = "Thresholds: chosen on all pairs (in-sample); other half: chosen on half, tried on the other"
        show(title, THRESHOLD_COLUMNS, choices)
    explain(HOW)
    if chosen.json:
        harness.write_json(chosen.json, {"how": HOW, "faces": str(chosen.faces), "rows": rows})


def show_lfw(rows: Rows, networks: Sequence[str]) -> None:
    """Print all figures, and the accuracy in the form of DeepFace's published table."""
    if not rows:
        raise SystemExit("no pair has a face on both sides; try other detectors: --detectors mtcnn,yunet")
    show("LFW's protocol", lfw.COLUMNS, rows)
    cells: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        names = {name: row[name] for name in ("distance", "how", "detector")}
        cells.setdefault(tuple(names.values()), names)[row["network"]] = row["accuracy"]
    ordered = [cells[key] for key in sorted(cells)]
    columns = ("=distance", "=how", "=detector", *(f"{name}:.1f" for name in networks))
    show("Accuracy in % in the form of DeepFace's table (its alignment is on)", columns, ordered)
    explain(HOW | lfw.HOW)


def read_lfw(folder: Path, pairs: Path | None) -> Labelled:
    """Read the pairs of LFW's protocol. End with exit code 2 if the file is malformed or pictures are missing."""
    read = lfw.read_pairs(folder, pairs)
    return Labelled(folder, read.left, read.right, read.same, {}, read)


def read_labelled(folder: Path, pairs: Path | None, labels: Path | None, below: str) -> Labelled:
    """Read the pairs and the labels of photographs below a folder of `folder`."""
    part = f"{below.rstrip('/')}/" if below else ""
    files = [pairs] if pairs else [folder / "pairs.csv", folder / "pairs_dev.csv"]
    rows = labels_in(files, {"path_a", "path_b", "same"})
    rows = [row for row in rows if row["path_a"].startswith(part) and row["path_b"].startswith(part)]
    same = np.array([row["same"] == "1" for row in rows])
    if same.all() or not same.any():
        raise SystemExit(f"the pairs file must have pairs of one person and pairs of two below '{part or '.'}'")
    files = [labels] if labels else [folder / "labels.csv", folder / "labels_dev.csv"]
    known = labels_in(files, {"path", "identity"}) if labels or any(path.is_file() for path in files) else []
    identity = {row["path"]: row["identity"] for row in known if row["path"].startswith(part)}
    return Labelled(folder, [row["path_a"] for row in rows], [row["path_b"] for row in rows], same, identity)


def our_rows(detector: str, networks: tuple[str, ...], faces: Labelled) -> Iterator[dict[str, Any]]:
    from pipeline.errors import ModelError
    from pipeline.faces.models import create_detector, create_embedder
    from pipeline.machine.device import Device

    device = Device(threads=len(os.sched_getaffinity(0)))
    for align in ("native", "deepface"):
        whole = {"whole_frame": True} if faces.lfw and align == "deepface" else {}
        try:
            finder = create_detector(detector, device, align=align, **whole)
        except ModelError as error:
            say(f"{detector}, align {align}, left out: {error}")
            continue
        found, detection = timed(lambda finder=finder: detected(finder, faces))
        seen = {name for name, face in found.items() if face.confidence[0] > 0}
        for network in networks:
            for how, (detection_align, cut) in OURS.items():
                if detection_align != align:
                    continue
                try:
                    embedder = create_embedder(network, device, **cut)
                except ModelError as error:
                    say(f"{network}, {how}, left out: {error}")
                    continue
                vectors, seconds = timed(
                    lambda embedder=embedder, found=found: {
                        name: embedder.embed(embedder.chips([faces.photograph(name)], face))[0].astype(np.float64)
                        for name, face in found.items()
                    }
                )
                who = identified(network, how, vectors, faces.identity) if faces.identity else {}
                yield judged(detector, network, how, vectors, faces, detection + seconds, who, len(seen))


def detected(finder: Any, faces: Labelled) -> dict[str, Any]:
    """Return the face of each photograph that counts, as Faces of one: the largest, or by LFW's protocol the one in
    the middle."""
    chosen = {}
    for name in faces.names:
        photograph = faces.photograph(name)
        found = finder.detect([photograph])
        if len(found.frame):
            best = int(found.box[:, 2:].prod(axis=1).argmax())
            if faces.lfw:
                best = lfw.middle(found.box, photograph.shape[1], photograph.shape[0])
            at = slice(best, best + 1)
            rows = {field: getattr(found, field)[at] for field in ("frame", "box", "landmarks", "confidence")}
            chosen[name] = replace(found, **rows, rank=None)
    return chosen


def hard_row(detector: str, turned: bool, photographs: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return the shares of faces in the middle of photographs that a detector finds, by change of the photograph."""
    from pipeline.faces.models import create_detector
    from pipeline.machine.device import Device

    finder = create_detector(detector, Device(threads=len(os.sched_getaffinity(0))), turned=turned)
    shares, upright, elsewhere, spent = {}, [], 0, 0.0
    for title, change in {"as it is": {}, **HARD}.items():
        hits = 0
        for number, photograph in enumerate(photographs):
            picture, middle, size = changed(photograph, number % 2, **change)
            found, seconds = timed(lambda picture=picture: finder.detect([picture]))
            stop = np.minimum(found.box[:, :2] + found.box[:, 2:], picture.shape[1::-1])
            centre = (np.maximum(found.box[:, :2], 0) + stop) / 2
            far = np.linalg.norm(centre - middle, axis=1) / size
            near = far < 0.4
            hits, elsewhere, spent = hits + bool(near.any()), elsewhere + int((~near).sum()), spent + seconds
            if near.any():
                right, left = found.landmarks[far.argmin(), :2]
                angle = np.degrees(np.arctan2(left[1] - right[1], left[0] - right[0])) + change.get("turn", 0)
                upright.append(abs((angle + 180) % 360 - 180) < 30)
        shares[title] = f"{hits / len(photographs):.3f}"
    name = f"{detector}, turned" if turned else detector
    milliseconds = 1000 * spent / len(photographs) / len(shares)
    say(f"{name}: {spent:.0f} s")
    return {"detector": name, **shares, "upright": float(np.mean(upright)), "elsewhere": elsewhere,
            "milliseconds": milliseconds}  # fmt: skip


def changed(
    photograph: np.ndarray, right: int, face: float = 0, cut: float = 0, turn: int = 0
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return a changed photograph, the middle of the face (of what is left of it) and its width in pixels.

    face: width to which the face is made smaller. cut: share of the face's width beyond the left edge, or the `right`
    one. turn: degrees to the left.
    """
    import cv2

    if face:
        scale = face / (FACE_SHARE * photograph.shape[1])
        photograph = np.asarray(cv2.resize(photograph, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    height, width = photograph.shape[:2]
    size, middle = FACE_SHARE * width, np.array([width / 2, height / 2])
    if cut:
        edge = round(width / 2 + (cut - 0.5) * size)
        photograph = photograph[:, : width - edge] if right else photograph[:, edge:]
        left = (1 - cut) * size / 2
        middle[0] = photograph.shape[1] - left if right else left
    if turn % 90:
        around = cv2.getRotationMatrix2D((width / 2, height / 2), turn, 1)
        photograph = np.asarray(cv2.warpAffine(photograph, around, (width, height)))
    elif turn:
        photograph = np.rot90(photograph, turn // 90)
        middle = np.array(photograph.shape[1::-1]) / 2
    return np.ascontiguousarray(photograph), middle, size


def stock_rows(detector: str, networks: tuple[str, ...], faces: Labelled) -> Iterator[dict[str, Any]]:
    from pipeline.errors import ModelError
    from pipeline.faces.models import zoo
    from pipeline.models.weights import weights_files

    # The same files of weights as ours; mtcnn and dlib bring their own library whatever the engine.
    os.environ.setdefault("DEEPFACE_BACKEND_ENGINE", "onnx")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for network in networks:
        try:
            for name in (detector, network):
                weights_files(zoo.card(name))  # DeepFace would try to download missing ones
            (vectors, seen), seconds = timed(lambda network=network: represented(detector, network, faces))
        except (ModelError, ImportError, ValueError) as error:
            say(f"stock DeepFace, {detector} + {network}, left out: {str(error).splitlines()[0]}")
            continue
        who = deepface_identified(detector, network, faces.folder, faces.identity) if faces.identity else {}
        yield judged(detector, network, "stock", vectors, faces, seconds, who, seen)


def represented(detector: str, network: str, faces: Labelled) -> tuple[Vectors, int]:
    """Return the vectors, and in how many photographs a face was found."""
    from deepface import DeepFace

    vectors, seen = {}, 0
    for name in faces.names:
        bgr = np.ascontiguousarray(faces.photograph(name)[:, :, ::-1])
        found = DeepFace.represent(
            bgr, model_name=network, detector_backend=detector, max_faces=None if faces.lfw else 1,
            enforce_detection=False,
        )  # fmt: skip
        box = np.array([[face["facial_area"][side] for side in "xywh"] for face in found], float)
        face = found[lfw.middle(box, bgr.shape[1], bgr.shape[0])]
        seen += face["face_confidence"] > 0
        if face["face_confidence"] > 0 or faces.lfw:
            vectors[name] = np.array(face["embedding"])
    return vectors, seen


def judged(
    detector: str, network: str, how: str, vectors: Vectors, faces: Labelled, seconds: float, who: dict[str, Any],
    found: int,
) -> dict[str, Any]:  # fmt: skip
    """Return one row; `seconds` are those of all photographs, detection included; `found`: photographs with a face."""
    from pipeline.faces.models.recognisers.thresholds import DEEPFACE_THRESHOLDS

    if faces.lfw:
        pictures = len(faces.names)
        return {
            "detector": detector, "network": network, "how": how, "pictures": pictures, "pairs": len(faces.left),
            "without_face": pictures - found, "seconds": seconds, "by_metric": lfw.judged(vectors, faces.lfw),
        }  # fmt: skip
    seen = np.array([a in vectors and b in vectors for a, b in zip(faces.left, faces.right, strict=True)])
    same, by_metric, thresholds = faces.same[seen], {}, {}
    if same.any() and not same.all():
        sides = (np.array(names)[seen] for names in (faces.left, faces.right))
        left, right = (np.stack([vectors[name] for name in names]) for names in sides)
        for metric in verification.METRICS:
            distance = verification.distances(left, right, metric)
            by_metric[metric] = asdict(verification.verify(distance, same, DEEPFACE_THRESHOLDS[network][metric]))
            thresholds[metric] = [asdict(choice) for choice in verification.thresholds(distance, same)]
    return {
        "detector": detector, "network": network, "how": how, "photographs": len(faces.names),
        "with_face": len(vectors), "pairs": len(seen), "pairs_with_faces": int(seen.sum()), "seconds": seconds,
        "by_metric": by_metric, "thresholds": thresholds, "identification": who,
    }  # fmt: skip


def halves(identity: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the pictures of the gallery, each person's first half by name, and the rest, the probes; a person with a
    single picture is not in the gallery."""
    by_person: dict[str, list[str]] = {}
    for path in sorted(identity):
        by_person.setdefault(identity[path], []).append(path)
    gallery = [path for paths in by_person.values() for path in paths[: len(paths) // 2]]
    return gallery, [path for path in sorted(identity) if path not in set(gallery)]


def identified(
    network: str, how: str, vectors: Mapping[str, np.ndarray], identity: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Judge this package: a photograph stands for its largest face, as `reelgraph find` takes it."""
    from pipeline.faces.models.recognisers.thresholds import thresholds
    from pipeline.faces.people.matching import Matcher, checked_metric

    gallery, probes = halves(identity)
    gallery = [path for path in gallery if path in vectors]
    seen = [path for path in probes if path in vectors]
    found = {}
    for metric in verification.METRICS:
        matcher = Matcher(np.stack([vectors[path] for path in gallery]), checked_metric(metric))
        distance = matcher.distances(np.stack([vectors[path] for path in seen])).tolist()
        people = [identity[path] for path in gallery]
        ranked = {path: list(zip(people, row, strict=True)) for path, row in zip(seen, distance, strict=True)}
        threshold = thresholds(network, OURS[how][1].get("align", "native"))[metric]
        found[metric] = named(ranked, probes, identity, threshold, len(gallery))
    return found


def deepface_identified(
    detector: str, network: str, folder: Path, identity: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Judge `DeepFace.find` itself, on a folder of links to the gallery's pictures; of a probe its largest face
    counts."""
    from deepface import DeepFace
    from deepface.modules.verification import find_threshold

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
            found[metric] = named(ranked, probes, identity, find_threshold(network, metric), entered)
    return found


def named(
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
    strict = verification.at_false_accepts(strangers, 0.01)
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


if __name__ == "__main__":
    main()
