"""A web server of weights with the faults that real ones have, in a thread of the test's own process."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file, and how it is served."""

    content: bytes
    etag: str = '"one"'
    ranges: bool = True
    cut_after: int = 0
    """Close the connection after so many bytes of an answer, `cuts` times."""
    cuts: int = 0
    status: int = 200
    seconds_per_piece: float = 0.0
    """Pause after each 64 KiB."""
    redirect: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/octet-stream"


@dataclass
class Request:
    path: str
    begin: int
    """First byte that was sent; -1 where none was."""
    sent: int = 0


class WeightsServer(ThreadingHTTPServer):
    """Serves `files` by path; keeps a log of `requests`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[Request] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed break connections; that is no news here."""


class _Handler(BaseHTTPRequestHandler):
    server: WeightsServer

    def do_GET(self) -> None:
        served = self.server.files.get(self.path, Served(b"no such file", status=404))
        if served.redirect:
            self.send_response(302)
            self.send_header("Location", served.redirect)
            self._end(served, 0)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        begin = int(asked[1]) if asked and served.ranges and self.headers.get("If-Range") == served.etag else 0
        if begin >= len(served.content) > 0:
            self.server.requests.append(Request(self.path, -1))
            self.send_response(416)
            self._end(served, 0)
            return
        self.send_response(206 if begin else served.status)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(served.content) - 1}/{len(served.content)}")
        self._end(served, len(served.content) - begin)
        request = Request(self.path, begin)
        self.server.requests.append(request)
        self._send(served, begin, request)

    def _end(self, served: Served, length: int) -> None:
        if served.etag:
            self.send_header("ETag", served.etag)
        self.send_header("Content-Type", served.content_type)
        self.send_header("Content-Length", str(length))
        for name, value in served.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, served: Served, begin: int, request: Request) -> None:
        stop = len(served.content)
        if served.cuts:
            served.cuts -= 1
            stop = min(stop, begin + served.cut_after)
        for start in range(begin, stop, 65536):
            piece = served.content[start : min(start + 65536, stop)]
            self.wfile.write(piece)
            request.sent += len(piece)
            if served.seconds_per_piece:
                self.wfile.flush()
                time.sleep(served.seconds_per_piece)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def weights_server() -> Iterator[WeightsServer]:
    with WeightsServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
