"""Appearances of people as events: what subtitles, chapters and cut lists are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.errors import UsageError
from pipeline.faces.people.labels import labels
from pipeline.faces.people.moments import Moments
from pipeline.text import plain
from pipeline.views.export import Export, InputRows, StoredRows


@dataclass(frozen=True)
class Event:
    """One appearance of one person."""

    name: str
    """Name of the person in one line; `person 3` for a person without a name."""
    start_seconds: float
    """Presentation time, as in the file."""
    stop_seconds: float
    """Exclusive."""
    screen_seconds: float


class AppearanceExport(Export):
    """A format with one event per appearance of a person."""

    axes: ClassVar[tuple[str, ...]] = ("face",)
    noun: ClassVar[str] = "appearance"
    of_films: ClassVar[bool] = True

    def events(self, stored: StoredRows, one: InputRows) -> list[Event]:
        """Return the appearances of all people of an input in order of time. Raises UsageError if it has no people."""
        item = one.item
        who = labels(item)
        found: list[Event] = []
        if who.source == "none" and len(who.code):
            raise UsageError(f"{one.name!r} has no people yet; run `reelgraph people` or `find` on {one.run.path}")
        if who.names:
            moments, arrays = Moments(item), item.read(["face_frame", *(["track"] if "track" in item.arrays else [])])
            order = np.argsort(who.code, kind="stable")
            codes, starts = np.unique(who.code[order], return_index=True)
            for code, rows in zip(codes.tolist(), np.split(order, starts[1:]), strict=True):
                if code in who.names:
                    track = arrays["track"][rows] if "track" in arrays else None
                    found += [
                        Event(plain(who.names[code]), each.start_seconds, each.stop_seconds, each.screen_seconds)
                        for each in moments.appearances(arrays["face_frame"][rows], track)
                    ]
        stored.n_rows += len(found)
        stored.n_items += item.frames_done
        return sorted(found, key=lambda event: (event.start_seconds, event.stop_seconds, event.name))
