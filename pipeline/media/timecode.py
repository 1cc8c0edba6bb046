"""Timecodes: rates that editors know, the timecode of a video's first frame, and what its file says of both."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.media.video.index import open_container

RATES = {
    "23.976": Fraction(24000, 1001), "24": Fraction(24), "25": Fraction(25), "29.97": Fraction(30000, 1001),
    "30": Fraction(30), "47.952": Fraction(48000, 1001), "48": Fraction(48), "50": Fraction(50),
    "59.94": Fraction(60000, 1001), "60": Fraction(60),
}  # fmt: skip
"""Frames per second that have timecodes (SMPTE ST 12), by the names that people give them."""
DROPPING = (RATES["29.97"], RATES["59.94"])
"""Rates that have drop frame."""
_NEAR = 4e-4
"""Share by which the average rate of a file may differ: 24 and 23.976 differ by 1e-3, files of phones by 3e-4."""
_TIMECODE = re.compile(r"(\d\d):([0-5]\d):([0-5]\d)([:;.])(\d\d)")


@dataclass(frozen=True)
class Media:
    """The facts of a video file that a store does not hold."""

    timecode: str | None
    """Timecode of the first frame, as written in the file."""
    start_seconds: float
    """Earliest time of any stream."""
    audio_channels: int
    """0 without sound."""


def media_of(path: Path) -> Media | None:
    """Return what a video file says; None if it is not there. Raises InputError if it cannot be read."""
    if not path.is_file():
        return None
    with open_container(path) as container:
        texts = [container.metadata, *(stream.metadata for stream in container.streams)]
        found = (value for text in texts for key, value in text.items() if key.lower() == "timecode")
        audio = next(iter(container.streams.audio), None)
        channels = audio.codec_context.layout.nb_channels if audio is not None else 0
        return Media(next(found, None), (container.start_time or 0) / 1_000_000, channels)


def rate_of(fps: float) -> Fraction | None:
    """Return the rate of timecodes that a frame rate is; None if it has no timecodes."""
    return next((rate for rate in RATES.values() if abs(fps / rate - 1) < _NEAR), None)


def named_rate(text: str) -> Fraction:
    """Return the rate of "25", "29.97" or "30000/1001". Raises UsageError for others."""
    try:
        rate = rate_of(float(Fraction(text)))
    except (ValueError, ZeroDivisionError):
        rate = None
    if rate is None:
        raise UsageError(f"--frame-rate {text} has no timecodes; choose {' | '.join(RATES)}")
    return rate


@dataclass(frozen=True)
class Start:
    """The timecode of a video's first frame."""

    frames: int
    """Number of the frame, counted from 00:00:00:00."""
    drop: bool
    """True if its timecodes leave numbers out, to keep step with the clock."""


def start_of(text: str | None, rate: Fraction, where: str) -> Start:
    """Return the start that a timecode says; `;` before the frames is drop frame. `where` is named in messages.

    Without a text it is zero, with drop frame if the rate has it. Raises UsageError if there is no such timecode.
    """
    if text is None:
        return Start(0, rate in DROPPING)
    match = _TIMECODE.fullmatch(text.strip())
    nominal = round(rate)
    if match is None or int(match[5]) >= nominal or int(match[1]) > 23:
        raise UsageError(f"{where}: {text!r} is not a timecode of {name_of(rate)} frames per second; write HH:MM:SS:FF")
    hours, minutes, seconds, number = (int(match[k]) for k in (1, 2, 3, 5))
    frames = ((hours * 60 + minutes) * 60 + seconds) * nominal + number
    if match[4] == ":":
        return Start(frames, False)
    dropped = nominal // 15
    if rate not in DROPPING:
        raise UsageError(f"{where}: {text!r} is drop frame, which {name_of(rate)} frames per second do not have; use :")
    if minutes % 10 and not seconds and number < dropped:
        follows = f"{text[:-2]}{dropped:02d}"
        raise UsageError(f"{where}: {text!r} is a number that drop frame leaves out; the next one is {follows}")
    whole = hours * 60 + minutes
    return Start(frames - dropped * (whole - whole // 10), True)


def frames_of_day(rate: Fraction, drop: bool) -> int:
    """Return the number of timecodes from 00:00:00:00 to 24:00:00:00."""
    minutes, nominal = 24 * 60, round(rate)
    return minutes * 60 * nominal - (nominal // 15 * (minutes - minutes // 10) if drop else 0)


def name_of(rate: Fraction) -> str:
    """Return the name of a rate: "29.97"."""
    return next((name for name, one in RATES.items() if one == rate), f"{float(rate):.6g}")
