"""Recording: one thread for each camera, which connects again for as long as it takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av

from pipeline.errors import ReelgraphError
from pipeline.media.recording.camera import Camera, Timed, Timeline
from pipeline.media.recording.segments import Segment, Segments, recording_into
from pipeline.store.nodes import disk_errors
from pipeline.text import duration, plain, plural, size

_PAUSES = (1.0, 30.0)
"""Seconds before the second try to connect, and the longest pause that doubling leads to."""
_RETAIN_SECONDS = 5.0
"""Seconds between two looks at the age and the size of the folder."""
_LEAVE_SECONDS = 1.0
"""Seconds that cameras have at the end to close their segments themselves: one that hangs does not."""


@dataclass
class Recorded:
    """The outcome for one camera."""

    name: str
    frames: int = 0
    segments: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    error: str | None = None
    """Reason why it gave no frame, or why this machine lost some; None if neither happened."""


class Recorder(threading.Thread):
    """The thread of a camera."""

    def __init__(
        self,
        camera: Camera,
        segments: Segments,
        seconds: float,
        timeout_seconds: float,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(name=f"record-{camera.name}", daemon=True)
        self.camera, self.segments, self.seconds, self.timeout_seconds = camera, segments, seconds, timeout_seconds
        self.stop = stop
        self.result = Recorded(camera.name)
        self._say_line = say
        self._segment: Segment | None = None
        self._lost_at: float | None = None
        """Time at which the camera fell silent (seconds since 1970); None while it gives frames."""
        self._seen_at = 0.0
        """Time of the last frame that was recorded."""
        self._length = 0.0
        """Seconds from the first frame of the segment to the last."""
        self._key_dts = 0
        self._group = 0
        """Distance of the last two places where a segment could begin, in the time base of the stream."""
        self._is_due = False
        """True if the next place where a segment can begin is to begin one."""

    def run(self) -> None:
        """Record until the camera's film ends, or `stop` is set."""
        pause = _PAUSES[0]
        while not self.stop.is_set():
            frames, lost = self.result.frames, "no signal"
            try:
                reason = self._connect()
            except av.error.ExitError:  # of a limit of time in Camera.open; FFmpeg says "Immediate exit requested"
                reason = "it sends nothing"
            except av.FFmpegError as err:
                reason = str(err.strerror or type(err).__name__)
            except Exception as err:  # whatever it is, the other cameras go on, and this one is tried again
                reason = str(getattr(err, "strerror", None) or err)
                self.result.error, lost = reason, "nothing is recorded"
            self.finish()
            if reason is None or self.stop.is_set():
                return
            if self.camera.is_file:
                self.result.error = reason
                self._say(f"it ends here: {reason}")
                return
            if self.result.frames > frames:
                pause = _PAUSES[0]
            if self._lost_at is None or self.result.frames > frames:
                self._lost_at = self._seen_at if self.result.frames > frames else time.time()
                self._say(f"{lost} since {_clock(self._lost_at)} ({reason}); it is tried again and again")
            if not self.result.frames:
                self.result.error = reason
            self.stop.wait(pause)
            pause = min(2 * pause, _PAUSES[1])

    def finish(self) -> None:
        """Close the segment under way. Another thread may call it, if this one hangs."""
        segment, self._segment = self._segment, None
        if segment is None:
            return
        try:
            if self.segments.finish(segment):
                self.result.segments += 1
                content = size(segment.place.stat().st_size)
                frames = plural(segment.frames, "frame")
                self._say_line(f"{segment.place.name}: {frames}, {duration(self._length)}, {content}")
        except (ReelgraphError, OSError) as err:
            self.result.error = str(err)
            if not self.segments.dropped_if_empty(segment):  # a full disk leaves one after each try
                self._say(f"{segment.aside.name} cannot be closed: {err}; the next start saves what it holds")

    def _connect(self) -> str | None:
        """Record from one connection; return why it ended, None if the film is at its end."""
        with self.camera.open(self.timeout_seconds) as container:
            if not container.streams.video:
                return "it has no video"
            timeline = Timeline(self.camera, container)
            skipped = 0
            for timed in timeline.packets():
                if self.stop.is_set():
                    return None
                if timed.note:
                    self._is_due = True
                    self._say(f"{timed.note}; a new segment begins at the next key frame")
                if timed.may_begin:
                    self._turn(timed, timeline)
                segment = self._segment  # another thread may close it and set it to None
                if segment is None:
                    skipped += 1  # nothing can be decoded before the first key frame
                    continue
                with disk_errors(f"write {segment.place}"):
                    if not segment.take(timed.packet, timed.pts, timed.dts):
                        return None
                if self._lost_at is not None:
                    now = time.time()
                    self.result.gaps += 1
                    self.result.gap_seconds += now - self._lost_at
                    lost = f"; {plural(skipped, 'frame')} before the first key frame cannot be decoded"
                    gap = f"gap of {now - self._lost_at:.1f} s, from {_clock(self._lost_at)} to {_clock(now)}"
                    self._say(gap + (lost if skipped else ""))
                    self._lost_at = None
                self._seen_at = time.time()
                self._length = float((timed.dts - (segment.origin or 0)) * timeline.base)
                self.result.frames += 1
                if self.result.frames == 1:
                    self.result.error = None
            return timeline.ended or (None if timeline.is_finite else "the stream ended")

    def _turn(self, timed: Timed, timeline: Timeline) -> None:
        """Begin a segment, if there is none or this key frame is the nearest one to the wanted length."""
        segment = self._segment
        if segment is not None and segment.origin is not None:
            self._group = timed.dts - self._key_dts
            length = float((timed.dts - segment.origin) * timeline.base)
            next_length = length + float(self._group * timeline.base)
            is_nearest = self.seconds - length <= next_length - self.seconds
            self._key_dts = timed.dts
            # Frames of an open group of pictures need the segment before. Only a stream of such groups is cut there.
            if not (self._is_due or is_nearest) or not (timed.is_closed or length >= 2 * self.seconds):
                return
            self.finish()
        self._key_dts, self._is_due = timed.dts, False
        with disk_errors(f"write to {self.segments.folder}"):
            self._segment = self.segments.begin(self.camera.name, time.time(), timeline.stream, timeline.encodes)
        if timeline.encodes and not self.result.segments:
            self._say("it gives raw pictures, which are encoded as H.264")

    def _say(self, text: str) -> None:
        self._say_line(f"{self.camera.name}: {text}")


def record(
    cameras: Sequence[Camera],
    folder: Path,
    stop: threading.Event,
    say: Callable[[str], None],
    *,
    seconds: float,
    timeout_seconds: float,
    keep_hours: float | None,
    keep_gb: float | None,
    analysed_in: Path | None = None,
) -> list[dict[str, Any]]:
    """Record cameras into segments until each film has ended, or `stop` is set; return what became of each.

    With `analysed_in`, a store, a segment that it has not analysed is not deleted. Raises UsageError if the folder
    cannot be used.
    """
    if analysed_in is not None and not analysed_in.exists():
        say(f"there is no store at {analysed_in} yet; no segment is deleted before it has analysed one")

    def retain() -> None:
        before = segments.kept_count
        segments.retain((keep_gb or float("inf")) * 1e9, (keep_hours or float("inf")) * 3600, analysed_in)
        if segments.kept_count and not before:
            say(
                f"{plural(segments.kept_count, 'segment')} beyond the limits cannot be deleted: {analysed_in} has not "
                "analysed them"
            )

    with recording_into(folder, say) as segments:
        recorders = [Recorder(camera, segments, seconds, timeout_seconds, stop, say) for camera in cameras]
        for recorder in recorders:
            recorder.start()
        looked = 0.0
        while not stop.wait(0.2) and any(recorder.is_alive() for recorder in recorders):
            if time.monotonic() - looked >= _RETAIN_SECONDS:
                looked = time.monotonic()
                retain()
        stop.set()
        until = time.monotonic() + _LEAVE_SECONDS
        for recorder in recorders:
            recorder.join(max(0.0, until - time.monotonic()))
            recorder.finish()
        retain()
        if segments.removed_count:
            say(f"{plural(segments.removed_count, 'segment')} deleted by age or size")
        return [asdict(recorder.result) for recorder in recorders]


def _clock(at: float) -> str:
    return plain(f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}Z")
