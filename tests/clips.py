"""Clips that tests draw and encode: no face in them, but every frame differs."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def write_clip(
    path: Path, n_frames: int = 120, size: tuple[int, int] = (160, 120), fps: int = 25, gop: int = 12
) -> Path:
    """An H.264 clip whose mean grey level rises from frame to frame; returns its path."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.options = {"preset": "ultrafast", "sc_threshold": "0"}
        for number in range(n_frames):
            picture = np.full((height, width, 3), 20 + 200 * number // max(n_frames, 1), np.uint8)
            picture[: height // 4, : width * (number % 10 + 1) // 12] = (255, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def remuxed(path: Path, target: Path, matrix: tuple[int, ...] | None = None) -> Path:
    """The same packets in another container, with a, b, c, d of a display matrix; an MP4's index comes first, so that
    it can be cut off."""
    options = {"movflags": "faststart"} if target.suffix in (".mp4", ".mov") else {}
    with av.open(str(path)) as reading, av.open(str(target), "w", options=options) as writing:
        stream = reading.streams.video[0]
        copy = writing.add_stream_from_template(stream)
        if matrix is not None:
            a, b, c, d = (value << 16 for value in matrix)
            copy.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for packet in reading.demux(stream):
            if packet.size:
                packet.stream = copy
                writing.mux(packet)
    return target


ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "none": ((1, 0, 0, 1), lambda frame: frame),
    "hflip": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "hflip,vflip": ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda frame: frame[::-1]),
    "transpose=cclock_flip": ((0, 1, 1, 0), lambda frame: frame.swapaxes(0, 1)),
    "transpose=clock": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "transpose=clock_flip": ((0, -1, -1, 0), lambda frame: np.rot90(frame.swapaxes(0, 1), 2)),
    "transpose=cclock": ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
}
"""The eight orientations, in the order of EXIF, by the filters that FFmpeg's autorotate takes: display matrix (a, b,
c, d), and the result. All were compared with FFmpeg's own output, in MP4 and Matroska."""
