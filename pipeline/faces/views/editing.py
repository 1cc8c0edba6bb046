"""Appearances as a list of cuts: EDL (CMX 3600), FCPXML and OpenTimelineIO.

All three hold one sequence: the appearances one after the other, by input and time. So people who are seen together do
not collide. A clip has the person's name. Its source times are timecodes of the video, counted from its first frame.

OpenTimelineIO and its adapter write .otio and EDL. FCPXML is written here, because its adapter (1.0) misplaces
video whose timecode does not begin at zero. It also names each video after the first person in it.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from pipeline.errors import UsageError
from pipeline.faces.views.appearing import AppearanceExport, Event
from pipeline.media.timecode import (
    DROPPING,
    RATES,
    Start,
    frames_of_day,
    media_of,
    name_of,
    named_rate,
    rate_of,
    start_of,
)  # fmt: skip
from pipeline.text import plain
from pipeline.views.export import InputRows, StoredRows

_MILLISECONDS = Fraction(1000)
"""Rate of .otio for frames that neither last equally long nor come near a rate of timecodes."""
_REEL_LETTERS = 8
"""Letters of a reel's name in CMX 3600."""
_MOST_EVENTS = 999
"""Events that CMX 3600 numbers."""
_RESERVED_REELS = ("AX", "BL", "BLACK", "BARS")
"""Reels that stand for no video in CMX 3600."""


@dataclass(frozen=True)
class Reel:
    """One video, as a list of cuts sees it."""

    name: str
    """Name for CMX 3600: up to 8 letters and digits, different for each video; parts of one video share it."""
    path: Path
    rate: Fraction
    """Timecodes per second."""
    has_timecodes: bool
    """False if the rate is one that editors do not have."""
    start: Start
    frames: int
    """Length in timecodes."""
    size: tuple[int, int]
    """Width and height of the upright frame."""
    aspect: Fraction
    """Width of a pixel for its height."""
    audio_channels: int | None
    """None if the video is not there."""
    is_steady: bool
    """True if each frame lasts as long as the others."""
    fps: float
    first_seconds: float
    """Time of the first frame in the file."""

    def frame_at(self, seconds: float) -> int:
        """Return the number of timecodes from the first frame to a time in the file."""
        # Steady frames are counted, so that 29.97 for 30000/1001 cannot add up to a frame over hours.
        steady = self.is_steady and rate_of(self.fps) == self.rate
        return round((seconds - self.first_seconds) * (self.fps if steady else float(self.rate)))


@dataclass(frozen=True)
class Cut:
    """One appearance in the sequence."""

    event: Event
    reel: Reel
    source: InputRows
    first: int
    """Number of the first frame, counted from timecode 00:00:00:00, inclusive."""
    stop: int
    """Exclusive."""


class _CutList(AppearanceExport):
    flags: ClassVar[tuple[str, ...]] = ("start_timecode", "frame_rate")
    one_rate: ClassVar[bool] = True
    """True if the format needs one rate, which editors have, for all inputs."""

    def cuts(self, stored: StoredRows) -> list[Cut]:
        """Return the sequence. Raises UsageError for rates that the format cannot hold."""
        made: list[Cut] = []
        names: dict[str, Path] = {}
        first: Reel | None = None
        for one in stored.inputs:
            reel = _reel(stored, one, names)
            first = first or reel
            if self.one_rate and not reel.has_timecodes:
                raise UsageError(
                    f"{one.name!r} has {reel.fps:.6g} frames per second, for which there are no timecodes; give the "
                    f"editor's rate with --frame-rate ({', '.join(RATES)}), or write .otio, .srt or .vtt"
                )
            if self.one_rate and (reel.rate, reel.start.drop) != (first.rate, first.start.drop):
                raise UsageError(
                    f"{one.name!r} has timecodes of {_counting(reel)}, and {stored.inputs[0].name!r} of "
                    f"{_counting(first)}; choose one with --frame-rate, or write a file each with {{input}} in --to"
                )
            for event in self.events(stored, one):
                begin = reel.frame_at(event.start_seconds)
                stop = max(begin + 1, reel.frame_at(event.stop_seconds))
                made.append(Cut(event, reel, one, reel.start.frames + begin, reel.start.frames + stop))
        return made


class Edl(_CutList):
    """CMX 3600."""

    suffixes: ClassVar[tuple[str, ...]] = (".edl",)

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        title, cuts = _title(stored), self.cuts(stored)
        head, body = f"TITLE: {title}\n\n", ""
        drop = False
        if cuts:
            drop, rate = cuts[0].reel.start.drop, cuts[0].reel.rate
            _check_day(cuts)
            if len(cuts) > _MOST_EVENTS:
                stored.notes.append(
                    f"{len(cuts)} events, and CMX 3600 has {_MOST_EVENTS}: some editors read no more; write .fcpxml, "
                    "or a file each with {input} in --to"
                )
            # Timecodes without drop frame count as those of the next whole rate.
            counted = rate if drop else Fraction(round(rate))
            timeline = _timeline(title, cuts, float(counted), lambda path: plain(str(path)))
            text = _otio().adapters.write_to_string(timeline, "cmx_3600", rate=float(counted), style="nucoda")
            body = text.removeprefix(head)
        file.write(f"TITLE: {title}\nFCM: {'' if drop else 'NON-'}DROP FRAME\n\n{body}".encode())


class Otio(_CutList):
    """OpenTimelineIO's own JSON."""

    suffixes: ClassVar[tuple[str, ...]] = (".otio",)
    one_rate: ClassVar[bool] = False

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        timeline = _timeline(_title(stored), self.cuts(stored), None, Path.as_uri)
        file.write(_otio().adapters.write_to_string(timeline, "otio_json").encode())


class FcpXml(_CutList):
    """Final Cut Pro's XML, version 1.8, which DaVinci Resolve reads too."""

    suffixes: ClassVar[tuple[str, ...]] = (".fcpxml",)

    def write(self, file: IO[bytes], stored: StoredRows) -> None:
        title, cuts = _text(_title(stored)), self.cuts(stored)
        root = ET.Element("fcpxml", version="1.8")
        resources = ET.SubElement(root, "resources")
        event = ET.SubElement(ET.SubElement(root, "library"), "event", name=title)
        sequence = ET.SubElement(ET.SubElement(event, "project", name=title), "sequence")
        spine = ET.SubElement(sequence, "spine")
        formats: dict[tuple[tuple[int, int], Fraction], str] = {}
        assets: dict[str, str] = {}
        at = 0
        lengths: dict[str, int] = {}
        for cut in cuts:
            lengths[cut.reel.name] = max(cut.reel.frames, lengths.get(cut.reel.name, 0))
        for cut in cuts:
            reel, rate = cut.reel, cut.reel.rate
            counting = "DF" if reel.start.drop else "NDF"
            look = reel.size, reel.aspect
            if look not in formats:
                formats[look] = f"f{len(formats) + 1}"
                width, height = map(str, reel.size)
                shape = {"paspH": str(reel.aspect.numerator), "paspV": str(reel.aspect.denominator)}
                _add(
                    resources, "format", id=formats[look], frameDuration=_time(1, rate), width=width, height=height,
                    **(shape if reel.aspect != 1 else {}),
                )  # fmt: skip
            if reel.name not in assets:
                assets[reel.name] = f"a{len(assets) + 1}"
                _add(
                    resources, "asset", id=assets[reel.name], name=_text(cut.source.name), src=reel.path.as_uri(),
                    start=_time(reel.start.frames, rate), duration=_time(lengths[reel.name], rate), hasVideo="1",
                    format=formats[look], **_sound(reel),
                )  # fmt: skip
            length = cut.stop - cut.first
            ET.SubElement(
                spine, "asset-clip", name=_text(cut.event.name), ref=assets[reel.name], offset=_time(at, rate),
                start=_time(cut.first, rate), duration=_time(length, rate), tcFormat=counting,
            )  # fmt: skip
            at += length
        if cuts:
            counting = "DF" if cuts[0].reel.start.drop else "NDF"
            rate = cuts[0].reel.rate
            sequence.attrib |= {"format": "f1", "duration": _time(at, rate), "tcStart": "0s", "tcFormat": counting}
        else:
            ET.SubElement(resources, "format", id="f1", frameDuration="1/25s")
            sequence.set("format", "f1")
        ET.indent(root)
        file.write(b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE fcpxml>\n')
        file.write(ET.tostring(root, "utf-8") + b"\n")


def _otio() -> Any:
    try:
        import opentimelineio
        import otio_cmx3600_adapter  # noqa: F401  # found by OpenTimelineIO itself
    except ImportError as err:
        raise UsageError("this format needs OpenTimelineIO: pip install 'reelgraph[otio]'") from err
    return opentimelineio


def _timeline(title: str, cuts: list[Cut], rate: float | None, url: Any) -> Any:
    """Return the sequence for OpenTimelineIO. `rate` None: each clip has the rate of its video."""
    otio = _otio()
    time = otio.opentime

    def span(start: float, length: float, per_second: float) -> Any:
        return time.TimeRange(time.RationalTime(start, per_second), time.RationalTime(length, per_second))

    track = otio.schema.Track("V", kind=otio.schema.TrackKind.Video)
    for cut in cuts:
        reel, event = cut.reel, cut.event
        per_second = rate or float(reel.rate)
        clip = otio.schema.Clip(
            event.name,
            otio.schema.ExternalReference(url(reel.path), span(reel.start.frames, reel.frames, per_second)),
            span(cut.first, cut.stop - cut.first, per_second),
        )
        clip.metadata["cmx_3600"] = {"reel": reel.name}
        clip.metadata["reelgraph"] = {
            "store": plain(str(cut.source.run.path)), "input": plain(cut.source.item.name),
            "start_seconds": event.start_seconds, "stop_seconds": event.stop_seconds,
            "screen_seconds": event.screen_seconds,
        }  # fmt: skip
        track.append(clip)
    timeline = otio.schema.Timeline(title)
    timeline.tracks.append(track)
    return timeline


def _reel(stored: StoredRows, one: InputRows, names: dict[str, Path]) -> Reel:
    """Return the video of an input. A start timecode that is given comes before the one in the file."""
    facts = one.item.attributes
    path, fps = Path(str(facts.get("path", ""))).absolute(), float(facts.get("fps") or 0.0)
    if fps <= 0:
        raise UsageError(f"{one.name!r} is not a video: it has no frame rate; export it as csv or coco")
    own = rate_of(fps)
    rate = named_rate(stored.frame_rate) if stored.frame_rate else own
    first_seconds = float(facts.get("start_seconds") or 0.0)
    media = media_of(path)
    length = float(facts.get("duration_seconds") or 0.0)
    is_steady = _is_steady(one, fps, first_seconds)
    counted = rate or (Fraction(fps).limit_denominator(1001) if is_steady else _MILLISECONDS)
    return Reel(
        _reel_name(path, path.stem or one.name, names),
        path,
        counted,
        rate is not None,
        _start(stored, one, rate, own, media.timecode if media else None, media is not None),
        max(1, round(length * counted)),
        (int(facts.get("width") or 0), int(facts.get("height") or 0)),
        _aspect(str(facts.get("sample_aspect_ratio", 1))),
        media.audio_channels if media else None,
        is_steady,
        fps,
        first_seconds,
    )


def _aspect(text: str) -> Fraction:
    """Return the width of a pixel for its height, as a store has it: "4/3"; 1 for a text that says none."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:/([1-9]\d{0,5}))?", text)
    return Fraction(int(match[1]), int(match[2] or 1)) if match else Fraction(1)


def _start(
    stored: StoredRows, one: InputRows, rate: Fraction | None, own: Fraction | None, written: str | None, there: bool
) -> Start:
    if rate is None:
        return Start(0, False)
    if stored.start_timecode is not None:
        return start_of(stored.start_timecode, rate, "--start-timecode")
    if not there:
        stored.notes.append(
            f"{one.name}: its video is not there, so timecodes count from 00:00:00:00; set another start with "
            "--start-timecode"
        )
    if written is not None and own is not None and own != rate:  # the same second, by the rate that was asked for
        number = int(written[-2:]) * round(rate) // round(own) if written[-2:].isdigit() else 0
        drops = rate in DROPPING and own in DROPPING  # then both leave out the same moments of the same minutes
        written = f"{written[:-3]}{written[-3:-2] if drops else ':'}{number:02d}"
    try:
        return start_of(written, rate, one.name)
    except UsageError as err:
        stored.notes.append(f"{err}; timecodes count from 00:00:00:00")
        return start_of(None, rate, one.name)


def _is_steady(one: InputRows, fps: float, first_seconds: float) -> bool:
    """Check that the rank of each sampled frame follows from its time."""
    if not {"frame", "time_seconds"} <= one.item.arrays.keys():
        return False
    arrays = one.item.read(["frame", "time_seconds"])
    return bool((np.abs((arrays["time_seconds"] - first_seconds) * fps - arrays["frame"]) < 0.5).all())


def _reel_name(path: Path, stem: str, names: dict[str, Path]) -> str:
    """Return up to 8 capital letters and digits of a file's name, and add them to `names`, which has each file's."""
    plain_name = re.sub(r"[^A-Z0-9]", "", stem.upper()) or "REEL"
    name, number = plain_name[:_REEL_LETTERS], 1
    while names.get(name, path) != path or name in _RESERVED_REELS:
        number += 1
        name = f"{plain_name[: _REEL_LETTERS - len(str(number))]}{number}"
    names[name] = path
    return name


def _check_day(cuts: list[Cut]) -> None:
    """Raise UsageError if a cut lies beyond the last timecode of a day."""
    recorded = 0
    for cut in cuts:
        recorded += cut.stop - cut.first
        day = frames_of_day(cut.reel.rate, cut.reel.start.drop)
        if max(recorded, cut.stop) > day:
            what = "the sequence" if recorded > day else repr(cut.source.name)
            raise UsageError(
                f"{what} goes on beyond 24:00:00:00, and an EDL has no timecodes for that; write .otio or .fcpxml, or "
                "begin at another --start-timecode"
            )


def _counting(reel: Reel) -> str:
    return f"{name_of(reel.rate)} frames per second{' with drop frame' if reel.start.drop else ''}"


def _sound(reel: Reel) -> dict[str, str]:
    if not reel.audio_channels:
        return {}
    return {"hasAudio": "1", "audioSources": "1", "audioChannels": str(reel.audio_channels)}


def _time(frames: int, rate: Fraction) -> str:
    """Return frames as seconds of FCPXML: "3003/30000s"."""
    return f"{frames * rate.denominator}/{rate.numerator}s"


def _add(parent: ET.Element, tag: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes)


def _text(text: str) -> str:
    """Return a text as XML can hold it, in one line."""
    return re.sub("[\ufffe\uffff]", "\ufffd", plain(text))


def _title(stored: StoredRows) -> str:
    return plain(stored.inputs[0].name if len(stored.inputs) == 1 else stored.runs[0].path.stem)
