"""Measure a loader in use: images per second, time that the consumer waited, use of CPU and GPU over time."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pipeline.machine.gpus import card_of, visible_gpus

_STEP_SECONDS = 0.5
"""Time between two samples, at first."""
_MOST_SAMPLES = 512
"""Samples that are kept; beyond, two become one."""
_ENOUGH = 0.95
"""Part of the best speed at which more workers are not worth their cores."""


@dataclass
class Sample:
    """A stretch of time."""

    start: float
    """Seconds since the first batch was asked for."""
    seconds: float
    images: int
    waited: float
    """Seconds that the consumer waited for batches."""
    cpu: float
    """Use of all cores of the machine, percent."""
    gpu: float | None
    """Use of the busiest GPU, percent; None if there is none."""


@dataclass
class Watch:
    """Figures of one loader; a sample is taken when a batch is asked for and the last one is old enough."""

    workers: int
    images: int = 0
    batches: int = 0
    waited: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    tried: dict[int, float] = field(default_factory=dict)
    """Images per second by number of workers."""
    _began: float | None = None
    _last: tuple[float, int, float] = (0.0, 0, 0.0)
    _step: float = _STEP_SECONDS
    _gpus: list[Any] = field(default_factory=list)

    def begin(self) -> float:
        """Return the time at which a batch is asked for; the first one is the beginning of all."""
        import psutil

        if self._began is None:
            psutil.cpu_percent()
            self._gpus = [card_of(gpu) for gpu in visible_gpus()]
            self._began = time.perf_counter()
            self._last = self._began, 0, 0.0
        return time.perf_counter()

    def add(self, images: int, asked: float) -> None:
        """Count a batch that is given now, and was asked for at a time of `begin`."""
        import psutil

        now = time.perf_counter()
        waited, began = now - asked, self._began or asked
        self.images, self.batches, self.waited = self.images + images, self.batches + 1, self.waited + waited
        before, counted, slept = self._last
        if now - before < self._step:
            return
        gpu = max((nvml.nvmlDeviceGetUtilizationRates(card).gpu for nvml, card in self._gpus), default=None)
        self.samples.append(Sample(
            before - began, now - before, self.images - counted, self.waited - slept, psutil.cpu_percent(), gpu
        ))  # fmt: skip
        self._last = now, self.images, self.waited
        if len(self.samples) >= _MOST_SAMPLES:
            self._step *= 2
            self.samples = [_joined(a, b) for a, b in zip(self.samples[::2], self.samples[1::2], strict=True)]

    @property
    def seconds(self) -> float:
        """Time of all samples."""
        return sum(sample.seconds for sample in self.samples)

    @property
    def images_per_second(self) -> float:
        return sum(sample.images for sample in self.samples) / self.seconds if self.samples else 0.0

    @property
    def waiting(self) -> float:
        """Share of time that the consumer waited, 0 to 1."""
        return sum(sample.waited for sample in self.samples) / self.seconds if self.samples else 0.0

    def knee(self) -> int:
        """Return the least number of workers that comes near to the best speed that was tried."""
        best = max(self.tried.values())
        return min(count for count, speed in self.tried.items() if speed >= _ENOUGH * best)

    def words(self) -> str:
        """Return the result in a sentence."""
        found = [f"{self.images_per_second:.0f} images/s", f"the consumer waits {self.waiting:.0%}"]
        if self.tried:
            found.insert(0, f"workers: {self.knee()} is the knee on this machine")
        else:
            found.insert(0, f"workers: {self.workers}")
        return "; ".join(found)


def _joined(a: Sample, b: Sample) -> Sample:
    seconds = a.seconds + b.seconds

    def mean(x: float, y: float) -> float:
        return (x * a.seconds + y * b.seconds) / seconds

    gpu = None if a.gpu is None or b.gpu is None else mean(a.gpu, b.gpu)
    return Sample(a.start, seconds, a.images + b.images, a.waited + b.waited, mean(a.cpu, b.cpu), gpu)
