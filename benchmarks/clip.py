"""The benchmark's clip: 1080p H.264, as long as it takes, made of a short clip that is repeated."""

from __future__ import annotations

import hashlib
import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from weights_at_hand import data_folder

SIZE = (1920, 1080)
KEY_FRAME_INTERVAL = 50
REAL_CLIP = "videos/lp_s18.mp4"
"""In the data folder: one woman, half-body, 1280x720, 282 frames."""


@dataclass(frozen=True)
class ClipFacts:
    """What the table says of its input."""

    path: str
    made_from: str
    width: int
    height: int
    frames: int
    key_frame_interval: int | None

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def real_clip() -> Path | None:
    """A clip of the data folder (REELGRAPH_DATA, by default beside this repository), where there is one."""
    clip = data_folder() / REAL_CLIP
    return clip if clip.is_file() else None


def make_clip(source: Path, made_from: str, folder: Path, n_frames: int, size: tuple[int, int] = SIZE) -> ClipFacts:
    """Scale `source` to `size`, encode it once, and repeat its packets until there are `n_frames`.

    Repeating packets costs no time; nothing that is measured remembers a frame. An earlier call's clip is used again.
    """
    content = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    path = folder / f"{source.stem}-{content}-{size[0]}x{size[1]}-{n_frames}.mp4"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        once, aside = path.with_suffix(".once.mp4"), path.with_suffix(".partial")
        _encode(source, once, size, n_frames)
        _repeat(once, aside, n_frames)
        os.replace(aside, path)
        once.unlink()
    return ClipFacts(str(path), made_from, *size, n_frames, KEY_FRAME_INTERVAL)


def clip_as_it_is(path: Path) -> ClipFacts:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sum(1 for packet in container.demux(stream) if packet.size)
        return ClipFacts(str(path), str(path), stream.width, stream.height, frames, None)


def _encode(source: Path, target: Path, size: tuple[int, int], n_frames: int) -> None:
    import av

    options = {"crf": "21", "preset": "veryfast"}
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = KEY_FRAME_INTERVAL
        stream.codec_context.max_b_frames = 2
        for index, frame in enumerate(reader.decode(video=0)):
            if index == n_frames:
                break
            scaled = frame.reformat(width=size[0], height=size[1], format="yuv420p", interpolation="BICUBIC")
            scaled.pts, scaled.time_base = index, Fraction(1, 30)
            scaled.pict_type = 0
            writer.mux(stream.encode(scaled))
        writer.mux(stream.encode(None))


def _repeat(source: Path, target: Path, n_frames: int) -> None:
    """Write the packets again and again, until there are `n_frames`; each round starts with a key frame, so the cut
    shows in no decoder."""
    import av

    written = 0
    with av.open(str(target), "w", format="mp4") as writer:
        stream = None
        while written < n_frames:
            with av.open(str(source)) as reader:
                first = reader.streams.video[0]
                stream = stream or writer.add_stream_from_template(first)
                step = round(1 / (first.average_rate * first.time_base))
                shift = written * step
                for packet in [packet for packet in reader.demux(first) if packet.size][: n_frames - written]:
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    writer.mux(packet)
                    written += 1
