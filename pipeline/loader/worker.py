"""A worker process: takes orders from its socket and writes batches into shared memory until the socket closes."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from pipeline.errors import ReelgraphError


@dataclass(frozen=True)
class Order:
    """A batch to make."""

    number: int
    """Number of the order; its answer has the same."""
    slot: int
    epoch: int
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """A batch that was made, or the reason why not."""

    number: int
    made: Any = None
    error: ReelgraphError | None = None


def main() -> None:
    """Run until the loader's process closes its end of the socket, also by its death."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the loader ends this one
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # it was blocked until here
    connection = Connection(int(sys.argv[2]))
    threading.Thread(target=_end_with, args=(connection.fileno(),), daemon=True).start()
    try:
        _work(connection)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _end_with(descriptor: int) -> None:
    """End this process once the other end of its socket is closed, also in the middle of a picture that takes long."""
    poll = select.poll()
    poll.register(descriptor, 0)  # that it is closed is always told
    poll.poll()
    os._exit(0)


def _work(connection: Any) -> None:
    import pickle

    import cv2

    from pipeline.loader.batches import Maker
    from pipeline.loader.ring import Ring

    cv2.setNumThreads(1)
    content = connection.recv_bytes()
    maker = ring = None
    while True:
        order: Order = connection.recv()
        try:
            if maker is None or ring is None:
                recipe, fields, batch, slots, memory = pickle.loads(content)
                maker, ring = Maker(recipe), Ring(fields, batch, slots, memory)
            made = maker.make(order.epoch, order.indices, ring.arrays(order.slot, len(order.indices)))
            answer = Answer(order.number, made)
        except ReelgraphError as err:
            answer = Answer(order.number, error=type(err)(str(err)))
        except Exception as err:
            told = "".join(traceback.format_exception(err))
            answer = Answer(order.number, error=ReelgraphError(f"a worker of the loader failed: {told}"))
        connection.send(answer)


def pair() -> tuple[Any, socket.socket]:
    """Return the loader's end of a new socket, and the worker's."""
    ours, theirs = socket.socketpair()
    return Connection(ours.detach()), theirs
