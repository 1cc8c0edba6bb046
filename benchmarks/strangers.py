"""Strangers who are named: the share of people outside a gallery who get a name of it, by the gallery's size.

    make strangers                                    the people of the data folder ($REELGRAPH_DATA/faces/lfw_many)
    make strangers ARGS="--faces DIR --labels FILE"   your own photographs

Photographs stand for the faces of a track: the means of several are judged as `reelgraph find` judges tracks. People
are drawn at random into a gallery, the others are strangers. `fixed` is the model's own threshold, face by face, as
`find --per face` has it. `DeepFace` has DeepFace's boxes, chips and threshold: `align: deepface`, which
tests/people/test_find_parity.py compares with the package itself. The line of the limit is fitted on one half of the
people and tried on the other; `shipped` is the line of pipeline/faces/people/evidence.py, which was fitted on all of
them (in-sample).

The first table is of `people`: crowds, every photograph a track, joined by average linkage up to shares of the
threshold. Shares, and rules by which they fall with the number of people, are chosen on one half of the people and
tried on the other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import REPOSITORY, Rows, data_folder, labels_in, parser, say, show, write_json

from pipeline.engine.workflow import load_workflow
from pipeline.faces.people.clustering import STEPS, Points, group_points
from pipeline.faces.people.described import STRICT_SHARE, THRESHOLD_SHARE, share_in_crowd
from pipeline.faces.people.evidence import Calibration, Level, Means, averaged, calibration, halved, judge, projected
from pipeline.faces.people.matching import METRICS, Metric
from pipeline.faces.people.pictures import PictureCache, Recipe, UnreadableError
from pipeline.faces.people.space import Space

SETS = ((1, 1), (2, 1), (1, 5), (2, 2), (2, 5))
"""Pictures of each person in the gallery, and faces of each track."""
AS_DEEPFACE = ("detect.align=deepface", "embed.align=deepface")
SHARES = (0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 0.975, 1.0)
MOST_PHOTOGRAPHS = 6
"""Most photographs of each person in a crowd: a few people have many."""
FITTED = ((1, 1), (2, 1), (1, 2), (2, 2), (1, 5), (2, 5), (4, 1), (4, 3))
COLUMNS = (
    "gallery", "pictures", "faces", "=how", "strangers", "named, %=strangers_named:.2f", "surely, %=surely:.2f",
    "known", "rightly, %=rightly:.1f", "wrongly, %=wrongly:.2f",
)  # fmt: skip

CROWDS = (15, 30, 100, 300, 420)
HALVINGS = 5
RULES = tuple(itertools.product(np.arange(0.9, 1.001, 0.0125), np.arange(0, 0.151, 0.0125)))
"""Share of the threshold for 100 people, and its decrease for ten times as many."""
CROWD_COLUMNS = ("people", "0.9=low:.3f", "0.975=high:.3f", "other half's share=own:.3f",
                 "other half's rule=held_out:.3f", "shipped rule=shipped:.3f", "=chosen")  # fmt: skip


@dataclass(frozen=True)
class People:
    """Vectors of labelled photographs."""

    vectors: np.ndarray
    """float64 (n, d)."""
    pictures: list[np.ndarray]
    """Rows of each person, int64."""


@dataclass(frozen=True)
class Trial:
    """One gallery, and tracks of everybody else and of other photographs of its people."""

    gallery: Means
    tracks: Means
    person: np.ndarray
    """int64 (tracks,): index in the gallery; -1 for strangers."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--faces", type=Path, default=data_folder() / "faces" / "lfw_many", help="folder of pictures")
    options.add_argument("--labels", type=Path, help="columns identity, path; default: labels.csv in that folder")
    options.add_argument("--workflow", type=Path, default=REPOSITORY / "workflows" / "faces.yaml")
    options.add_argument("--metric", choices=METRICS, default="cosine")
    options.add_argument("--galleries", type=int, nargs="+", default=[10, 30, 100, 300, 800], help="numbers of people")
    options.add_argument("--trials", type=int, default=20)
    options.add_argument("--deepface", action="store_true", help="also with the boxes, chips and threshold of DeepFace")
    options.add_argument("--curve", type=Path, metavar="FILE.svg", help="draw the strangers who are named, by size")
    options.add_argument("--json", type=Path, metavar="PATH")
    chosen = options.parse_args()
    labels = chosen.labels or chosen.faces / "labels.csv"
    people, embedding = read_people(chosen.faces, labels, chosen.workflow)
    threshold = float(embedding["thresholds"][chosen.metric])
    show("Photographs joined into people", CROWD_COLUMNS, crowds(people, Space.of(embedding), chosen.trials))
    people = People(projected(people.vectors, chosen.metric), people.pictures)
    rng = np.random.default_rng(0)
    shuffled = rng.permutation(len(people.pictures))
    halves = [[people.pictures[k] for k in part] for part in np.array_split(shuffled, 2)]
    shipped = calibration(chosen.metric, threshold, str(embedding["align"]))
    lines = {"shipped": shipped, "fitted on all": fitted(people, chosen.metric, rng)}
    for name, learnt in (("first", 0), ("second", 1)):
        lines[f"fitted on the {name} half"] = fitted(People(people.vectors, halves[learnt]), chosen.metric, rng)
    show("Lines of the limit", ("=line", "base:.4f", "per_residual:.4f", "per_decade:.4f", "spread:.4f"), [
        {"line": name, **asdict(line)} for name, line in lines.items()
    ])  # fmt: skip
    rows: Rows = []
    for pictures, faces in SETS:
        for size in chosen.galleries:
            trials = list(draw(people, pictures, faces, size, shipped.spread, chosen.metric, chosen.trials, rng))
            rows += [figures(trials, size, pictures, faces, "shipped", shipped)]
            if pictures == faces == 1:
                limit = float(halved(chosen.metric, threshold))
                rows += [figures(trials, size, pictures, faces, "fixed", shipped, limit)]
            for name, tried in (("first", 1), ("second", 0)):
                other = People(people.vectors, halves[tried])
                line = lines[f"fitted on the {name} half"]
                parts = list(draw(other, pictures, faces, size, line.spread, chosen.metric, chosen.trials, rng))
                rows += [figures(parts, size, pictures, faces, f"{name} half, on the other", line)]
    if chosen.deepface:
        stock, embedding = read_people(chosen.faces, labels, chosen.workflow, *AS_DEEPFACE)
        stock = People(projected(stock.vectors, chosen.metric), stock.pictures)
        limit = float(halved(chosen.metric, embedding["thresholds"][chosen.metric]))
        for size in chosen.galleries:
            trials = list(draw(stock, 1, 1, size, shipped.spread, chosen.metric, chosen.trials, rng))
            rows += [figures(trials, size, 1, 1, "DeepFace", shipped, limit)]
    rows = [row for row in rows if row["strangers"] >= 200]
    show(f"Strangers and known people, {chosen.metric}", COLUMNS, rows)
    if chosen.curve:
        draw_curve(chosen.curve, rows)
    if chosen.json:
        write_json(chosen.json, {"lines": {name: asdict(line) for name, line in lines.items()}, "rows": rows})


def read_people(folder: Path, labels: Path, workflow: Path, *overrides: str) -> tuple[People, Mapping[str, Any]]:
    """Return the faces nearest to the middle of all labelled pictures, and facts of their embeddings.

    Pictures without a face are left out.
    """
    recipe = Recipe.of_store({"workflow": load_workflow(workflow, overrides).resolved()}, str(workflow))
    rows = labels_in([labels], {"identity", "path"})
    found: dict[str, list[np.ndarray]] = {}
    faces = PictureCache(recipe).faces([folder / row["path"] for row in rows], None)
    for row, one in zip(rows, faces, strict=True):
        if isinstance(one, UnreadableError) or not len(one):
            say(f"{row['path']}: no face")
            continue
        away = np.linalg.norm(one.box[:, :2] + one.box[:, 2:] / 2 - one.size / 2, axis=1)
        found.setdefault(row["identity"], []).append(one.embedding[away.argmin()].astype(np.float64))
    counts = np.cumsum([0, *(len(some) for some in found.values())])
    pictures = [np.arange(start, stop) for start, stop in itertools.pairwise(counts)]
    return People(np.concatenate([np.array(some) for some in found.values()]), pictures), recipe.embedding


def draw(
    people: People, pictures: int, faces: int, size: int, spread: float, metric: Metric, trials: int,
    rng: np.random.Generator,
) -> Iterator[Trial]:  # fmt: skip
    """Yield galleries of `size` people, with `pictures` of each, and tracks of `faces` photographs of all others."""
    able = [k for k, rows in enumerate(people.pictures) if len(rows) >= pictures]
    if len(able) < size:
        return

    def mean(rows: np.ndarray) -> tuple[np.ndarray, float]:
        return averaged(people.vectors[rows], np.ones(len(rows)), spread, metric)

    for _ in range(trials):
        chosen = {int(k): at for at, k in enumerate(rng.permutation(able)[:size])}
        gallery: list[Any] = [None] * size
        tracks, person = [], []
        for k, rows in enumerate(people.pictures):
            rest = rng.permutation(rows)
            if k in chosen:
                gallery[chosen[k]] = mean(rest[:pictures])
                rest = rest[pictures:]
            if len(rest) >= faces:
                tracks.append(mean(rest[:faces]))
                person.append(chosen.get(k, -1))
        if tracks:
            yield Trial(means(gallery), means(tracks), np.array(person))


def means(found: Sequence[tuple[np.ndarray, float]]) -> Means:
    return Means(np.array([vector for vector, _ in found]), np.array([residual for _, residual in found]))


def figures(
    trials: Sequence[Trial], size: int, pictures: int, faces: int, how: str, line: Calibration,
    threshold: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the shares of strangers and of known people that get a name, in percent."""
    strangers, known, wrong = [], [], []
    for trial in trials:
        found = judge(trial.tracks, trial.gallery, line, threshold)
        level = found.level
        if threshold is not None:  # the nearest within it, without a look at the second nearest
            level = np.where(found.distance <= threshold, Level.LIKELY, Level.NONE)
        is_known = trial.person >= 0
        strangers += level[~is_known].tolist()
        is_named = level[is_known] >= Level.LIKELY
        known += (is_named & (found.person[is_known] == trial.person[is_known])).tolist()
        wrong += (is_named & (found.person[is_known] != trial.person[is_known])).tolist()

    def percent(hits: Any) -> float:
        return 100 * float(np.mean(hits)) if len(hits) else float("nan")

    return {
        "gallery": size, "pictures": pictures, "faces": faces, "how": how,
        "strangers": len(strangers), "strangers_named": percent(np.array(strangers) >= Level.LIKELY),
        "surely": percent(np.array(strangers) >= Level.SURE), "known": len(known), "rightly": percent(known),
        "wrongly": percent(wrong),
    }  # fmt: skip


def draw_curve(path: Path, rows: Rows) -> None:
    """Draw the share of strangers who are named, by the gallery's size, for all ways on one picture and one face."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "strangers", "svg.fonttype": "none", "font.family": "sans-serif"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    shown = {
        "DeepFace": ("DeepFace: its threshold, face by face", "#b5483a"),
        "fixed": ("our vectors, fixed threshold", "#c98a1b"),
        "shipped": ("find: a limit that falls with the gallery", "#1f6f8b"),
    }
    for how, (label, colour) in shown.items():
        points = [row for row in rows if row["how"] == how and row["pictures"] == row["faces"] == 1]
        if points:
            share = [max(row["strangers_named"], 0.01) for row in points]
            axes.plot([row["gallery"] for row in points], share, "o-", color=colour, label=label)
    axes.axhline(1, color="#888888", linestyle=":", linewidth=1)
    axes.set(xscale="log", yscale="log", xlabel="people in the gallery", ylabel="strangers who get a name, %")
    axes.set_ylim(0.1, 100)
    ticks = sorted({row["gallery"] for row in rows})
    axes.set_xticks(ticks, [str(size) for size in ticks])
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axes.minorticks_off()
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    axes.grid(alpha=0.2, which="both")
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
    say(f"drawn: {path}")


def crowds(people: People, space: Space, trials: int) -> Rows:
    """Return for each size of crowd the F1 of pairs by fixed shares, and by rules for the number of people.

    Shares and rules are chosen on one half of the people and measured on the other, in several halvings.
    """
    vectors, rng = space.project(people.vectors), np.random.default_rng(0)
    parts = [np.array_split(rng.permutation(len(people.pictures)), 2) for _ in range(HALVINGS)]
    found = {
        (k, half, size): [
            _crowd(people, vectors, rng.permutation(parts[k][half])[:size], space.threshold)
            for _ in range(max(2, trials * CROWDS[0] // size))
        ]
        for k, half, size in itertools.product(range(HALVINGS), (0, 1), CROWDS)
    }

    def f1(share_of: Callable[[list[int]], float], *where: tuple[int, int, int]) -> float:
        return float(np.mean([
            np.mean([np.interp(share_of(groups), SHARES, curve) for groups, curve in found[one]]) for one in where
        ]))  # fmt: skip

    def falling(in_crowd: Callable[[float], float]) -> Callable[[list[int]], float]:
        def share_of(groups: list[int]) -> float:
            now = STRICT_SHARE
            while now < (most := in_crowd(float(np.interp(now, SHARES, groups)))):
                now = min(most, now + (THRESHOLD_SHARE - STRICT_SHARE) / STEPS)
            return now

        return share_of

    def by_rule(for_100: float, per_decade: float) -> Callable[[list[int]], float]:
        return falling(lambda people: min(THRESHOLD_SHARE, for_100 - per_decade * float(np.log10(people / 100))))

    def fixed(share: float) -> Callable[[list[int]], float]:
        return lambda groups: share

    rows: Rows = []
    halves = list(itertools.product(range(HALVINGS), (0, 1)))
    chosen = {
        (k, 1 - half): max(RULES, key=lambda rule: f1(by_rule(*rule), *((k, half, size) for size in CROWDS)))
        for k, half in halves
    }
    for size in CROWDS:
        own = {
            (k, 1 - half): SHARES[int(np.argmax([f1(fixed(share), (k, half, size)) for share in SHARES]))]
            for k, half in halves
        }
        everywhere = [(*one, size) for one in halves]
        rows.append({
            "people": size, "low": f1(fixed(0.9), *everywhere), "high": f1(fixed(0.975), *everywhere),
            "own": np.mean([f1(fixed(own[one]), (*one, size)) for one in halves]),
            "held_out": np.mean([f1(by_rule(*chosen[one]), (*one, size)) for one in halves]),
            "shipped": f1(falling(share_in_crowd), *everywhere),
            "chosen": " ".join(sorted(f"{share:.3f}" for share in own.values())),
        })  # fmt: skip
    return rows


def _crowd(people: People, vectors: np.ndarray, who: np.ndarray, threshold: float) -> tuple[list[int], list[float]]:
    """Return for one crowd the number of groups, and the F1 of pairs, by share."""
    drawn = [people.pictures[k][:MOST_PHOTOGRAPHS] for k in who]
    truth, rows = np.repeat(np.arange(len(drawn)), [len(some) for some in drawn]), np.concatenate(drawn)
    none = np.zeros(len(rows))
    points = Points(vectors[rows], none, none, none + 1, none.astype(np.int64), none == 0)
    groups, curve = [], []
    for share in SHARES:
        group = group_points(points, np.empty((0, 2), np.int64), share * threshold).group
        groups.append(int(group.max()) + 1)
        labels = np.stack([group, truth]), group, truth
        both, of_found, of_truth = (
            float((n * (n - 1)).sum()) for n in (np.unique(one, axis=-1, return_counts=True)[1] for one in labels)
        )
        curve.append(2 * both / max(1.0, of_found + of_truth))
    return groups, curve


def fitted(people: People, metric: Metric, rng: np.random.Generator) -> Calibration:
    """Return the line through the distances that 1% of strangers are within, by least squares."""
    centres = [people.vectors[rows].mean(axis=0) for rows in people.pictures]
    deviations = [
        ((people.vectors[rows] - centre) ** 2).sum(axis=1)
        for rows, centre in zip(people.pictures, centres, strict=True)
    ]
    several = [some for some in deviations if len(some) > 1]
    spread = sum(some.sum() for some in several) / sum(len(some) - 1 for some in several)
    points, limits, weights = [], [], []
    for pictures, faces in FITTED:
        for size in (10, 30, 100, 300):
            nearest, residual = [], []
            for trial in draw(people, pictures, faces, size, spread, metric, 10, rng):
                rows = np.flatnonzero(trial.person < 0)
                vectors = trial.tracks.vector[rows]
                apart = (
                    np.einsum("ij,ij->i", vectors, vectors)[:, None]
                    + np.einsum("ij,ij->i", trial.gallery.vector, trial.gallery.vector)
                ) / 2 - vectors @ trial.gallery.vector.T
                first = apart.argmin(axis=1)
                nearest += apart[np.arange(len(rows)), first].tolist()
                residual += (trial.tracks.residual[rows] + trial.gallery.residual[first]).tolist()
            if len(nearest) >= 400:
                points.append([1.0, float(np.mean(residual)), -np.log10(size)])
                limits.append(float(np.quantile(nearest, 0.01)))
                weights.append(len(nearest) ** 0.5)
    line, *_ = np.linalg.lstsq(np.array(points) * np.array(weights)[:, None], np.array(limits) * weights, rcond=None)
    return Calibration(*(float(value) for value in line), float(spread))


if __name__ == "__main__":
    main()
