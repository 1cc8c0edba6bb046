"""Appearances as subtitles (WebVTT, SubRip) and as chapters (FFMETADATA), on the clock of the video file.

Each is a few lines of text, written here: libraries of subtitles read markup into names (pysubs2 that of ASS).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from html import escape
from pathlib import Path
from typing import IO, ClassVar

from pipeline.faces.views.appearing import AppearanceExport
from pipeline.media.timecode import media_of
from pipeline.media.video.index import CLOCKED_CONTAINERS
from pipeline.views.export import InputRows, StoredRows

_NO_MARKUP = str.maketrans("<>{}", "‹›()")
"""SubRip has no escapes: characters that players take for markup, and `-->`, become similar ones."""
_SPECIAL = re.compile(r"([=;#\\])")
"""Characters that FFMETADATA wants a backslash before."""


class _Captions(AppearanceExport):
    """Text with one entry per appearance, in order of time; entries may overlap."""

    one_input: ClassVar[bool] = True
    head: ClassVar[str] = ""

    @abstractmethod
    def entry(self, number: int, start: int, stop: int, name: str) -> str:
        """Return the lines of an appearance; `start` and `stop` in milliseconds."""

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        file.write(self.head.encode())
        for one in stored.inputs:
            zero = _zero(one)
            for number, event in enumerate(self.events(stored, one), start=1):
                start = max(0, round((event.start_seconds - zero) * 1000))
                stop = max(start + 1, round((event.stop_seconds - zero) * 1000))  # players drop what lasts no time
                file.write(self.entry(number, start, stop, event.name).encode())


class WebVtt(_Captions):
    """Subtitles for the web."""

    suffixes: ClassVar[tuple[str, ...]] = (".vtt",)
    head: ClassVar[str] = "WEBVTT\n\n"

    def entry(self, number: int, start: int, stop: int, name: str) -> str:
        return f"{number}\n{_time(start, '.')} --> {_time(stop, '.')}\n{escape(name, quote=False)}\n\n"


class SubRip(_Captions):
    """Subtitles for players and editors."""

    suffixes: ClassVar[tuple[str, ...]] = (".srt",)

    def entry(self, number: int, start: int, stop: int, name: str) -> str:
        return f"{number}\n{_time(start, ',')} --> {_time(stop, ',')}\n{name.translate(_NO_MARKUP)}\n\n"


class Chapters(_Captions):
    """Chapters that FFmpeg puts into a video."""

    suffixes: ClassVar[tuple[str, ...]] = (".ffmetadata",)
    head: ClassVar[str] = ";FFMETADATA1\n"

    def entry(self, number: int, start: int, stop: int, name: str) -> str:
        title = _SPECIAL.sub(r"\\\1", name)
        return f"[CHAPTER]\nTIMEBASE=1/1000\nSTART={start}\nEND={stop}\ntitle={title}\n"


def _time(milliseconds: int, point: str) -> str:
    """Return HH:MM:SS.mmm."""
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _zero(one: InputRows) -> float:
    """Return the time in the file that players show as zero: its start, for containers whose clock starts anywhere."""
    facts = one.item.attributes
    if facts.get("container") not in CLOCKED_CONTAINERS:
        return 0.0
    media = media_of(Path(str(facts.get("path", ""))))
    return media.start_seconds if media else float(facts.get("start_seconds") or 0.0)
