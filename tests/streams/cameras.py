"""Cameras that tests make: a film whose frames say their number, looped and served over HTTP or RTSP in real time."""

from __future__ import annotations

import io
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.bitstream import BitStreamFilterContext

BITS = 10
"""Bits of a number, each a square of 16 pixels: white for 1."""


def picture(number: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    """Return an RGB picture that shows its number."""
    shown = np.full((size[1], size[0], 3), 90, np.uint8)
    for bit in range(BITS):
        shown[32:48, 16 * bit : 16 * bit + 16] = 255 * (number >> bit & 1)
    return shown


def number_in(shown: np.ndarray) -> int:
    """Return the number that a picture of `picture` shows."""
    return sum(int(shown[36:44, 16 * bit + 4 : 16 * bit + 12].mean() > 128) << bit for bit in range(BITS))


def write_film(path: Path, frames: int, fps: int = 25, gop: int = 10, first: int = 0, **options: str) -> Path:
    """Write an H.264 film of numbered frames, by the ending of its name; return its path."""
    with av.open(str(path), "w") as container:
        settings = {"preset": "ultrafast", "sc_threshold": "0", **options}
        stream = container.add_stream("libx264", rate=fps, options=settings)
        stream.width, stream.height, stream.pix_fmt, stream.codec_context.gop_size = 160, 120, "yuv420p", gop
        stream.codec_context.thread_count = 1  # one slice a picture: the RTSP server repeats headers before each
        for number in range(first, first + frames):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number - first, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers_of(*films: Path) -> list[int]:
    """Return the numbers of all frames of some films, in order."""
    found = []
    for film in films:
        with av.open(str(film)) as container:
            found += [number_in(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return found


class HttpCamera:
    """A server that plays a looped film in real time to whoever asks: /ts, /mjpeg, /slow (which falls silent)."""

    def __init__(self, film: Path, port: int = 0) -> None:
        with av.open(str(film)) as container:
            stream = container.streams.video[0]
            self.fps = int(stream.average_rate or 25)
            packets = [packet for packet in container.demux(stream) if packet.size]
            self.count = len(packets)
        self.film = film
        self.sent: list[list[int]] = []
        """Numbers of the frames that each connection was sent whole."""
        self.sent_by_kind: list[tuple[str, list[int]]] = []
        """The same lists, with the kind of stream."""
        self.is_broken = threading.Event()
        self.reset_after: int | None = None
        """Frames of a connection after which its timestamps start again from 0."""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._serve(self)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.began = time.monotonic()

    def url(self, path: str, credentials: str = "") -> str:
        return f"http://{credentials}127.0.0.1:{self.server.server_port}/{path}"

    def close(self) -> None:
        self.is_broken.set()
        self.server.shutdown()
        self.server.server_close()

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        if self.is_broken.is_set():
            request.send_error(503)
            return
        request.send_response(200)
        kind = request.path.strip("/").partition("?")[0]
        mime = "video/mp2t" if kind != "mjpeg" else "multipart/x-mixed-replace; boundary=frame"
        request.send_header("Content-Type", mime)
        request.end_headers()
        sent: list[int] = []
        self.sent.append(sent)
        self.sent_by_kind.append((kind, sent))
        with suppress(OSError):
            (self._send_mjpeg if kind == "mjpeg" else self._send_ts)(request.wfile, sent, kind == "slow")

    def _ticks(self) -> Iterator[int]:
        """Yield the numbers of frames as time comes for them, until the camera breaks."""
        tick = int((time.monotonic() - self.began) * self.fps)
        while not self.is_broken.is_set():
            time.sleep(max(0.0, self.began + tick / self.fps - time.monotonic()))
            yield tick
            tick += 1

    def _send_mjpeg(self, out: Any, sent: list[int], _: bool) -> None:
        for tick in self._ticks():
            number = tick % self.count
            jpeg = cv2.imencode(".jpg", picture(number)[..., ::-1])[1].tobytes()
            out.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg))
            sent.append(number)

    def _send_ts(self, out: Any, sent: list[int], falls_silent: bool) -> None:
        buffer = io.BytesIO()
        ticks = self._ticks()
        with av.open(str(self.film)) as film:
            source = film.streams.video[0]
            packets = [(bytes(packet), packet.is_keyframe) for packet in film.demux(source) if packet.size]
            # A connection begins with a key frame.
            start = next((tick for tick in ticks if packets[tick % self.count][1]), 0)
            for first in (start, start + (self.reset_after or 10**9)):
                writing = av.open(buffer, "w", format="mpegts")
                copy = writing.add_stream_from_template(source)
                for tick in itertools.chain([first], ticks):
                    if tick == start + (self.reset_after or 0) > first:
                        break
                    content, is_key = packets[tick % self.count]
                    packet = av.Packet(content)
                    packet.is_keyframe = is_key
                    packet.time_base, packet.stream = Fraction(1, self.fps), copy
                    packet.pts = packet.dts = tick - first
                    writing.mux_one(packet)
                    out.write(buffer.getvalue())
                    buffer.seek(0)
                    buffer.truncate()
                    sent.append(tick % self.count)
                    if falls_silent and len(sent) > 60:
                        self.is_broken.wait()
                writing.close()
                out.write(buffer.getvalue())
                buffer.seek(0)
                buffer.truncate()
                if self.is_broken.is_set():
                    return


@contextmanager
def rtsp_camera(film: Path, port: int) -> Iterator[str]:
    """Serve a film of numbered frames over RTSP, by Debian's gst-rtsp-server; give its address."""
    pictures = film.with_suffix(".pictures")
    pictures.mkdir(exist_ok=True)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        fps = int(stream.average_rate or 25)
        to_byte_stream = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in container.demux(stream):
            for made in to_byte_stream.filter(packet if packet.size else None):
                number = round(made.pts * made.time_base * fps)
                (pictures / f"{number:05d}.h264").write_bytes(bytes(made))
    script = Path(__file__).with_name("rtsp_server.py")
    words = ["/usr/bin/python3", str(script), str(pictures), str(fps), str(port)]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        server.stdout.readline()
        yield f"rtsp://127.0.0.1:{port}/camera"
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
