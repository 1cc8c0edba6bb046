"""NVDEC, the GPU's own video decoder, through PyNvVideoCodec: PyAV's packets in, PyAV's frames out.

Only the decoding itself moves to the GPU. PacketReader still reads the packets and identifies frames, by the timestamp
of the packet that each came from. It also converts them to RGB (swscale, the stream's matrix and range). So frames
cannot be counted differently. A decoder that follows the standard gives the same bytes everywhere; choice.py compares
some frames with PyAV's before it chooses NVDEC for a file.

NVDEC does not say which frames are damaged: it shows what it can make of them. An open file takes GPU memory beside the
models' share: the pictures that its codec refers to, and the driver's own.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.video.frame import VideoFrame

from pipeline.media.video.index import Break
from pipeline.media.video.readers import PacketReader, Sent

PACKAGE = "PyNvVideoCodec"
CODECS = {"h264": "H264", "hevc": "HEVC", "vp8": "VP8", "vp9": "VP9", "av1": "AV1"}
"""Names in PyNvVideoCodec.cudaVideoCodec by the names of FFmpeg."""
TO_START_CODES = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}
"""Bitstream filters by codec. NVDEC needs start codes and parameter sets in the stream, but mp4 and mkv have lengths
and a header. FFmpeg's own cuvid decoders use these filters too. Streams that have start codes pass unchanged."""
PIXEL_FORMATS = ("yuv420p", "yuvj420p")
"""Pixel formats that NVDEC gives as NV12: the same bytes with the two planes of colour interleaved."""


class NvdecError(Exception):
    """NVDEC failed: PyAV has to decode."""


@lru_cache(maxsize=1)
def why_not_here() -> str | None:
    """Return why this process cannot use NVDEC, None if it can, as far as it shows without a file."""
    from pipeline.machine.gpus import visible_gpus

    if importlib.util.find_spec(PACKAGE) is None:
        return f"{PACKAGE} is not installed: pip install 'reelgraph[nvdec]'"
    if not visible_gpus():
        return "no GPU is visible"
    try:
        importlib.import_module(PACKAGE)
    except Exception as error:  # RuntimeError, ImportError or OSError, if the driver or its libraries are missing
        return f"{PACKAGE} cannot be loaded: {_first_line(error)}"
    return None


class NvdecReader(PacketReader):
    """A PacketReader whose packets are decoded on the first visible GPU."""

    def __init__(self, path: str, stream: int, breaks: tuple[Break, ...] = ()) -> None:
        """Open a file. Raises NvdecError if NVDEC cannot be used here, or not for this stream."""
        reason = why_not_here()
        if reason is not None:
            raise NvdecError(reason)
        self._library: Any = importlib.import_module(PACKAGE)
        self._decoder: Any = None
        super().__init__(path, stream, 1, breaks)

    def _open(self) -> None:
        super()._open()
        codec = CODECS.get(self._context.codec.canonical_name)
        self._format = self._context.format.name if self._context.format else "no pixel format"
        if codec is None or self._format not in PIXEL_FORMATS:
            raise NvdecError(f"not for {self._context.codec.canonical_name} in {self._format}")
        if self._decoder is not None:
            return
        try:
            codec_id = getattr(self._library.cudaVideoCodec, codec)
            self._decoder = self._library.CreateDecoder(gpuid=0, codec=codec_id, usedevicememory=False)
        except Exception as error:  # PyNvVCException, and RuntimeError of its helpers
            raise NvdecError(_first_line(error)) from error

    def _restart(self, packet: Packet[Any] | None) -> None:
        super()._restart(packet)
        name = self._context.codec.canonical_name
        self._filter = BitStreamFilterContext(TO_START_CODES[name], self._stream) if name in TO_START_CODES else None
        if self._decoder is not None and self._awaited:
            self._decode(b"", 0)  # the end of a stream: the frames still inside belong to the reader's old position
        self._awaited: dict[int, Sent] = {}

    def _prime(self) -> None:
        """Do nothing: only FFmpeg's decoder needs this."""

    def _send(self, packet: Packet[Any] | None) -> Sequence[VideoFrame]:
        if packet is None:
            return self._frames(self._decode(b"", 0))
        if packet.pts is None:
            raise NvdecError("a packet has no timestamp")
        pts = packet.pts
        self._awaited[pts] = self._note_sent(packet)
        found: list[VideoFrame] = []
        # Filtering takes the packet's content away: nothing may read it from here on.
        for part in [packet] if self._filter is None else self._filter.filter(packet):
            found += self._frames(self._decode(bytes(part), pts))
        return found

    def _decode(self, content: bytes, pts: int) -> list[Any]:
        """Return PyNvVideoCodec's frames, valid until the next call. Without content: all that are still to come."""
        packet = self._library.PacketData()
        buffer = ctypes.create_string_buffer(content, len(content))  # alive until Decode has returned
        if content:
            packet.bsl_data, packet.bsl, packet.pts = ctypes.addressof(buffer), len(content), pts
        try:
            return list(self._decoder.Decode(packet))
        except Exception as error:  # PyNvVCException, and RuntimeError of its helpers
            raise NvdecError(_first_line(error)) from error

    def _frames(self, decoded: list[Any]) -> list[VideoFrame]:
        """Return copies, each with the packet that it came from, without frames sent before the last seek."""
        sent = [(one, self._awaited.pop(one.getPTS(), None)) for one in decoded]
        return [self._copy(one, packet) for one, packet in sent if packet is not None]

    def _copy(self, decoded: Any, sent: Sent) -> VideoFrame:
        width, height = self._context.width, self._context.height
        size = width * height * 3 // 2
        if decoded.framesize() != size:
            raise NvdecError(f"frames of {decoded.framesize()} bytes, but {width}x{height} pixels have {size}")
        address = ctypes.cast(decoded.GetPtrToPlane(0), ctypes.POINTER(ctypes.c_uint8))
        rows = np.ctypeslib.as_array(address, (height * 3 // 2, width))
        frame = VideoFrame(width, height, self._format)
        colours = rows[height:].reshape(height // 2, width // 2, 2)
        for plane, values in zip(frame.planes, (rows[:height], colours[..., 0], colours[..., 1]), strict=True):
            target = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
            target[: values.shape[0], : values.shape[1]] = values
        frame.colorspace, frame.color_range = self._context.colorspace, self._context.color_range
        frame.pts, frame.opaque = sent.pts, sent
        return frame

    def close(self) -> None:
        super().close()
        self._decoder = None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
