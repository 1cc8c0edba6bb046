"""Cutting without encoding: packets of picture and sound, from the key frame before."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer

from pipeline.errors import InputError
from pipeline.files.whole import made_folder
from pipeline.media.film.film import Film
from pipeline.media.film.movie import part_of
from pipeline.media.film.sound import Copied, audio_streams, packets_before
from pipeline.media.video.index import open_container
from pipeline.store.nodes import disk_errors


def suffix_for_copy(film: Film) -> str:
    """The ending of a file that takes the packets of a film as they are: QuickTime has codecs that MP4 has not."""
    if not film.index.container.startswith("mov,mp4"):
        return ".mkv"
    with open_container(film.path) as source, av.open(io.BytesIO(), "w", format="mp4") as target:
        try:
            for stream in _streams(source, film):
                target.add_stream_from_template(stream)
        except ValueError:
            return ".mov"
    return ".mp4"


def _streams(source: InputContainer, film: Film) -> list[Any]:
    return [source.streams[index] for index in (film.index.stream, *audio_streams(film.path))]


def _opened_before(film: Film, pts: int, dts: int | None) -> InputContainer:
    """Open a film at the key frame with these timestamps, or before it; at its start if no seek goes there.

    Containers without an index (MPEG-TS, MPEG-PS) seek past it, so the packet that is read afterwards decides.
    """
    source = open_container(film.path)
    if film.index.breaks or dts is None:
        return source
    video = source.streams[film.index.stream]
    second = round(1 / film.index.time_base)
    for at in (pts, dts, dts - second, dts - 10 * second):
        with suppress(av.FFmpegError):
            source.seek(at, stream=video, backward=True)
            first = next((packet for packet in source.demux(video) if packet.size), None)
            if first is not None and first.dts is not None and first.dts <= dts:
                source.seek(at, stream=video, backward=True)
                return source
    source.close()
    return open_container(film.path)


def copy_packets(film: Film, target: Path, start: float, stop: float) -> tuple[float, float]:
    """Copy what is shown from the key frame before `start` to `stop` (seconds) into `target`, beginning at time 0.

    Returns from when to when, in seconds of the source. Raises InputError where the container cannot take them.
    """
    if film.index.ordinal:
        raise InputError(f"{film.path}: its packets have no times and cannot be copied; cut it without --copy")
    # Pts of the key frame that the frame at `start` can be decoded from.
    keys = film.index.seek_pts
    at = max(0, int(np.searchsorted(keys * float(film.index.time_base), start + 1e-6)) - 1)
    key, dts = (int(keys[at]), int(film.index.seek_dts[at])) if len(keys) else (int(film.index.pts[0]), None)
    begin = float(key * film.index.time_base)
    aside = part_of(target)
    kind = {".mp4": "mp4", ".mov": "mov"}.get(target.suffix, "matroska")
    options = {} if kind == "matroska" else {"movflags": "+faststart"}
    try:
        with disk_errors(f"write {target}"), _opened_before(film, key, dts) as source:
            made_folder(target.parent, target)
            with av.open(str(aside), "w", format=kind, options=options) as container:
                chosen = _streams(source, film)
                copies = {stream.index: Copied(container, stream, begin) for stream in chosen}
                for packet in packets_before(source, chosen, stop, film.index.breaks):
                    copies[packet.stream_index].take(packet)
            aside.replace(target)
    except av.FFmpegError as err:
        raise InputError(f"{film.path}: its packets cannot be copied ({err.strerror}); cut it without --copy") from err
    except ValueError as err:  # PyAV's, of a codec that the container has not
        raise InputError(f"{film.path}: its packets cannot be copied ({err}); cut it without --copy") from err
    finally:
        aside.unlink(missing_ok=True)
    return begin, stop
