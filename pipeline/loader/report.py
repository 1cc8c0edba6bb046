"""The page of `Loader.report`: what was measured, in words and as plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.files.whole import written_whole
from pipeline.loader.watch import Sample, Watch
from pipeline.text import duration, plural
from pipeline.version import __version__
from pipeline.views.report.panel import fill, grouped, text_of

WIDTH, HEIGHT = 960, 170
"""Pixels of a plot."""
_LEFT, _BELOW = 58, 22
"""Pixels beside and below a plot for its scale."""
_TICKS = 5


def write(
    watch: Watch, to: str | os.PathLike[str], items: int, broken: int, reasons: Sequence[tuple[str, int]]
) -> Path:
    """Write the page of a loader; return its path. Raises UsageError if it cannot be written."""
    place = Path(to).expanduser()
    samples = watch.samples
    gpus = [sample for sample in samples if sample.gpu is not None]
    tiles = [
        ("images per second", grouped(round(watch.images_per_second)), plural(watch.workers, "worker")),
        ("the consumer waits", f"{watch.waiting:.0%}", "of the time"),
        ("CPU", f"{_mean(samples, [sample.cpu for sample in samples]):.0f}%", "of all cores"),
        ("GPU", f"{_mean(gpus, [sample.gpu or 0 for sample in gpus]):.0f}%" if gpus else "–", "" if gpus else "none"),
        ("images", grouped(watch.images), f"{plural(watch.batches, 'batch')}, {duration(watch.seconds)}"),
        ("unreadable", grouped(broken), f"of {grouped(items)} pictures"),
    ]
    page = fill(
        __package__ or "", "page.html", version=__version__, style=text_of("pipeline.views.report", "page.css"),
        words=watch.words(), tiles=tiles, reasons=reasons, tried=_bars(watch), seconds=watch.seconds,
        plots=_plots(samples), has_gpu=bool(gpus), width=WIDTH, height=HEIGHT, left=_LEFT, below=_BELOW,
    )  # fmt: skip
    with written_whole(place) as file:
        file.write(page.encode())
    return place


def _mean(samples: Sequence[Sample], values: Sequence[float]) -> float:
    whole = sum(sample.seconds for sample in samples)
    return sum(sample.seconds * value for sample, value in zip(samples, values, strict=True)) / whole if whole else 0.0


def _bars(watch: Watch) -> list[dict[str, object]]:
    """Return the numbers of workers that were tried, each with its speed and its part of the best."""
    best, knee = max(watch.tried.values(), default=1.0), watch.knee() if watch.tried else -1
    return [
        {"workers": plural(count, "worker"), "speed": round(speed), "part": 100 * speed / best, "knee": count == knee}
        for count, speed in watch.tried.items()
    ]


def _plots(samples: Sequence[Sample]) -> list[dict[str, object]]:
    if not samples:
        return []
    shares: list[tuple[str, list[tuple[Sample, float]]]] = [
        ("consumer waits", [(sample, 100 * sample.waited / sample.seconds) for sample in samples]),
        ("CPU", [(sample, sample.cpu) for sample in samples]),
    ]
    gpu = [(sample, sample.gpu) for sample in samples if sample.gpu is not None]
    if gpu:
        shares.append(("GPU", gpu))
    speeds = [(sample, sample.images / sample.seconds) for sample in samples]
    end = samples[-1].start + samples[-1].seconds
    return [
        _plot("Use over time", "percent of the time, or of all cores", shares, 100.0, end),
        _plot("Speed over time", "images per second", [("images per second", speeds)], _round(speeds), end),
    ]


def _plot(
    title: str, unit: str, lines: Sequence[tuple[str, list[tuple[Sample, float]]]], top: float, end: float
) -> dict[str, object]:
    """Return a plot: for each line the points of a staircase, and the ticks of both scales."""
    span = WIDTH - _LEFT - 8
    high = HEIGHT - _BELOW - 8

    def x(seconds: float) -> float:
        return _LEFT + span * seconds / end

    def y(value: float) -> float:
        return 8 + high * (1 - min(value, top) / top)

    drawn = []
    for number, (name, values) in enumerate(lines):
        points = [
            f"{x(at):.1f},{y(value):.1f}"
            for sample, value in values
            for at in (sample.start, sample.start + sample.seconds)
        ]
        drawn.append({"name": name, "number": number, "points": " ".join(points)})
    rows = [{"at": y(top * k / 4), "text": grouped(round(top * k / 4))} for k in range(5)]
    columns = [{"at": x(end * k / _TICKS), "text": duration(end * k / _TICKS)} for k in range(_TICKS + 1)]
    return {"title": title, "unit": unit, "lines": drawn, "rows": rows, "columns": columns}


def _round(speeds: Sequence[tuple[Sample, float]]) -> float:
    """Return the top of a scale: the largest speed, rounded up to two digits, a multiple of 4."""
    largest = max(value for _, value in speeds)
    step: float = 4.0
    while step * 25 < largest:
        step *= 2
    return max(step, -(-largest // step) * step)
