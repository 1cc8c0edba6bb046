"""Stands in for PyNvVideoCodec where there is no GPU: as much of it as is used, with FFmpeg decoding behind it.

Names and behaviour are those of PyNvVideoCodec 2.2: packets are filled in by address; `Decode` gives the frames that
are ready, in NV12, in memory that the next call writes over; an empty packet gives the rest and ends the stream. It
shows that packets, timestamps and pixels are handed over rightly; nothing of NVDEC itself.
"""

from __future__ import annotations

import ctypes
from enum import Enum
from types import SimpleNamespace
from typing import Any, ClassVar

import av
import numpy as np


class cudaVideoCodec(Enum):  # noqa: N801  (the library's name)
    H264 = "h264"
    HEVC = "hevc"
    VP8 = "vp8"
    VP9 = "vp9"
    AV1 = "av1"


class PacketData:
    bsl = 0
    bsl_data = 0
    pts = 0


class PyNvVCException(Exception):  # noqa: N818  (the library's name)
    pass


class DecodedFrame:
    def __init__(self, buffer: np.ndarray, pts: int) -> None:
        self._buffer, self._pts = buffer, pts

    def getPTS(self) -> int:  # noqa: N802
        return self._pts

    def framesize(self) -> int:
        return self._buffer.size

    def GetPtrToPlane(self, plane: int) -> int:  # noqa: N802
        return int(self._buffer.ctypes.data)


class Decoder:
    made: ClassVar[int] = 0
    ended: ClassVar[int] = 0
    """Streams that were ended with frames still inside."""

    def __init__(self, codec: cudaVideoCodec) -> None:
        type(self).made += 1
        self._codec = codec
        self._stock: list[np.ndarray] = []
        self._begin()

    def _begin(self) -> None:
        self._context = av.CodecContext.create(self._codec.value, "r")

    def Decode(self, packet: PacketData) -> list[DecodedFrame]:  # noqa: N802
        if packet.bsl:
            content = ctypes.string_at(packet.bsl_data, packet.bsl)
            if self._codec in (cudaVideoCodec.H264, cudaVideoCodec.HEVC):
                assert content.startswith((b"\0\0\1", b"\0\0\0\1")), "no start code"
            sent = av.Packet(content)
            sent.pts = packet.pts
            frames = self._context.decode(sent)
        else:
            frames = self._context.decode(None)
            type(self).ended += bool(frames)
            self._begin()
        return [self._handed_out(place, frame) for place, frame in enumerate(frames)]

    def _handed_out(self, place: int, frame: Any) -> DecodedFrame:
        nv12 = frame.reformat(format="nv12").to_ndarray()
        if place == len(self._stock):
            self._stock.append(np.empty_like(nv12))
        self._stock[place][:] = nv12
        return DecodedFrame(self._stock[place], frame.pts)


def package(**changed: Any) -> SimpleNamespace:
    """The module; `changed` replaces some of it."""

    def create(gpuid: int, codec: cudaVideoCodec, usedevicememory: bool) -> Decoder:
        assert (gpuid, usedevicememory) == (0, False)
        return Decoder(codec)

    names = {
        "CreateDecoder": create,
        "PacketData": PacketData,
        "PyNvVCException": PyNvVCException,
        "cudaVideoCodec": cudaVideoCodec,
    }
    return SimpleNamespace(**{**names, **changed})
