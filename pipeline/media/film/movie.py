"""Writing a film: frames in, a file out, beside its name until it is whole."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from pipeline.errors import UsageError
from pipeline.files.whole import made_folder
from pipeline.media.film.film import Colour, Film
from pipeline.media.film.sound import Sound
from pipeline.store.nodes import disk_errors

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's name of the container for each ending that a film may have."""
_CODECS = {
    "mp4": ("libx264", "libopenh264", "mpeg4"),
    "mov": ("libx264", "libopenh264", "mpeg4"),
    "matroska": ("libx264", "libvpx-vp9", "mpeg4"),
    "webm": ("libvpx-vp9", "libvpx"),
}
_OPTIONS = {
    "libx264": {"crf": "20", "preset": "veryfast"},
    "libvpx-vp9": {"crf": "31", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
    "libvpx": {"crf": "10", "b": "4M", "deadline": "realtime", "cpu-used": "6"},
    "mpeg4": {"flags": "+qscale", "global_quality": str(3 * 118)},  # FF_QP2LAMBDA is 118
}
_MPEG4_FINEST = 65535
"""MPEG-4 Part 2 counts time in fractions of a second: this is the largest denominator."""
_LIMITED_RANGE = 1
_RGB, _BT601 = 0, 6
_WITH_MATRIX_OF_ITS_OWN = frozenset({1, 4, 7, 9})
"""AVCOL_SPC of BT.709, FCC, SMPTE 240M and BT.2020: swscale numbers them alike; it takes BT.601 for all others."""
_SWS_BT601 = 5
_SOUND_AHEAD_SECONDS = 0.5


@dataclass(frozen=True)
class Look:
    """What the frames of a film have in common."""

    width: int
    height: int
    sample_aspect_ratio: Fraction
    rate: Fraction
    """Frames per second as the container says; each frame has a time of its own."""
    time_base: Fraction
    colour: Colour

    @classmethod
    def of(cls, film: Film, time_base: Fraction | None = None) -> Look:
        """That of a film, upright."""
        base = time_base or film.index.time_base
        return cls(film.width, film.height, film.sample_aspect_ratio, film.rate, base, film.colour)


class Movie:
    """A film that is being written. Leaving its `with` block gives it its name; an error there leaves nothing."""

    def __init__(self, target: Path, look: Look) -> None:
        """Raises UsageError where the name does not end like a film, or nothing here encodes one."""
        self.target, self.look = target, look
        self._aside = part_of(target)
        self._kind = container_of(target)
        codecs = _CODECS[self._kind]
        chosen = next((codec for codec in codecs if _can_encode(codec)), None)
        if chosen is None:
            raise UsageError(f"FFmpeg here encodes none of {', '.join(codecs)}; reinstall PyAV: pip install -U av")
        self.codec = chosen
        self.sound: Sound | None = None
        self.n_frames = 0
        self._reformatter = VideoReformatter()
        self._last_pts = -(1 << 62)

    @property
    def note(self) -> str | None:
        """One line where it is not the codec that everything plays."""
        wanted = _CODECS[self._kind][0]
        return None if self.codec == wanted else f"FFmpeg here lacks {wanted}: {self.target.name} is {self.codec}"

    def __enter__(self) -> Movie:
        options = {"movflags": "+faststart"} if self._kind in ("mp4", "mov") else {}
        with disk_errors(f"write {self.target}"):
            made_folder(self.target.parent, self.target)
            self.container: OutputContainer = av.open(str(self._aside), "w", format=self._kind, options=options)
        look = self.look
        base = look.time_base
        if self.codec == "mpeg4" and base.denominator > _MPEG4_FINEST:
            base = Fraction(1, 60000)
        stream = self.container.add_stream(
            self.codec, rate=look.rate.limit_denominator(_MPEG4_FINEST), options=dict(_OPTIONS.get(self.codec, {}))
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = look.width + look.width % 2, look.height + look.height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = stream.time_base = base
        context.sample_aspect_ratio = look.sample_aspect_ratio
        context.color_range = _LIMITED_RANGE
        context.colorspace = _BT601 if look.colour.matrix == _RGB else look.colour.matrix
        context.color_trc, context.color_primaries = look.colour.transfer, look.colour.primaries
        self._stream, self._base, self._frame_ticks = stream, base, max(1, round(1 / (look.rate * base)))
        return self

    def put(self, frame_rgb: npt.NDArray[np.uint8], pts: int) -> None:
        """Append a frame, uint8 (height, width, 3); `pts` in the look's time base, above that of the last one."""
        height, width = frame_rgb.shape[:2]
        if height % 2 or width % 2:  # 4:2:0 has no odd sizes: the last row or column is there twice
            frame_rgb = np.pad(frame_rgb, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        matrix = self.look.colour.matrix
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(np.ascontiguousarray(frame_rgb), format="rgb24"),
            format="yuv420p",
            dst_colorspace=matrix if matrix in _WITH_MATRIX_OF_ITS_OWN else _SWS_BT601,
            dst_color_range=_LIMITED_RANGE,
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
            threads=1,
        )
        pts = max(round(pts * self.look.time_base / self._base), self._last_pts + 1)
        frame.pts, frame.time_base, self._last_pts = pts, self._base, pts
        self.n_frames += 1
        with disk_errors(f"write {self.target}"):
            self._mux(self._stream.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._frame_ticks  # players go by the start of the next frame: only the last one's counts
            if self.sound is not None and packet.dts is not None:
                self.sound.until(float(packet.dts * packet.time_base) + _SOUND_AHEAD_SECONDS)
            self.container.mux_one(packet)

    def _finish(self) -> None:
        self._mux(self._stream.encode(None))
        if self.sound is not None:
            self.sound.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with disk_errors(f"write {self.target}"):
                if error is None:
                    self._finish()
                    self.container.close()
                    self._aside.replace(self.target)
        finally:
            with suppress(av.FFmpegError):
                self.container.close()
            if self.sound is not None:
                self.sound.close()
            self._aside.unlink(missing_ok=True)


def container_of(target: Path) -> str:
    """FFmpeg's name of the container that a file's ending asks for. Raises UsageError for another ending."""
    kind = CONTAINERS.get(target.suffix.lower())
    if kind is None:
        raise UsageError(f"{target}: a film ends in {', '.join(CONTAINERS)}, not {target.suffix!r}")
    return kind


def part_of(target: Path) -> Path:
    """Where a file lies until it is whole."""
    return target.with_name(f".{target.name}.part")


def _can_encode(codec: str) -> bool:
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return True
