"""The command line: parses, calls, prints one line for an expected error."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import multiprocessing.util
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from pipeline.commands import EXIT_CODES, any_text
from pipeline.errors import ReelgraphError, StoppedError, UsageError
from pipeline.installed import OURS, by_name
from pipeline.text import plain, without_secrets
from pipeline.version import __version__

EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 128 + signal.SIGTERM
DESCRIPTION = (
    "Vision models, faces first, over whole archives of video and pictures: Dask tasks over chunks, into a Zarr store "
    "that resumes."
)
GROUP = "reelgraph.commands"
_OF_PATHS = frozenset({errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP})
"""Errors of the operating system that a path of the user's may bring wherever it is looked at."""


class _TerminatedError(BaseException):
    """SIGTERM came; no code of a stage takes it for a failure of its own."""


@contextlib.contextmanager
def _raised_on_sigterm() -> Iterator[None]:
    """Raise _TerminatedError on SIGTERM, so that files that are not whole are removed.

    A run and a recorder handle the signal themselves while they work.
    """

    def ended(number: int, _frame: object) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():  # of a program that calls `main`
        yield
        return
    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # of a terminal that has no ×, and names that are not UTF-8
    words = list(sys.argv[1:] if argv is None else argv)
    options = _parser(words).parse_args(words)
    try:
        try:
            os.getcwd()
        except FileNotFoundError as err:
            raise UsageError("the folder you are in has been deleted; cd to one that exists") from err
        with _raised_on_sigterm():
            return int(options.command(options))
    except ReelgraphError as err:
        continues = f": {shlex.join(['reelgraph', *words])}" if isinstance(err, StoppedError) else ""
        print(f"reelgraph: {plain(f'{err}{continues}')}", file=sys.stderr)
        return err.exit_code
    except MemoryError as err:
        print(
            f"reelgraph: there is not enough memory ({err}); use a larger machine, or check the store: "
            "reelgraph verify OUT",
            file=sys.stderr,
        )
        return UsageError.exit_code
    except KeyboardInterrupt:
        print(
            f"\ninterrupted; what was committed is kept. This continues:\n  {plain(shlex.join(['reelgraph', *words]))}",
            file=sys.stderr,
        )
        _leave(EXIT_INTERRUPTED)
    except _TerminatedError:
        _leave(EXIT_TERMINATED)
    except BrokenPipeError:
        return 0  # `reelgraph status ... | head`
    except OSError as err:
        if err.errno not in _OF_PATHS or not err.filename or getattr(options, "debug", False):
            raise
        print(f"reelgraph: {plain(f'{err.filename}: {err.strerror}; choose another path')}", file=sys.stderr)
        return UsageError.exit_code


def _leave(code: int) -> NoReturn:
    """End the process at once: threads in native code would keep the interpreter for as long as they like."""
    sys.stdout.flush()
    sys.stderr.flush()
    # Workers that are still starting end, and their semaphores go, which Python would report after the prompt.
    for child in multiprocessing.active_children():
        child.kill()
    multiprocessing.util._run_finalizers(0)  # type: ignore[attr-defined]
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everywhere, where argparse would print a screen of usage first.

    Inputs may stand before and after flags. In `run faces --out OUT clip.mp4` argparse alone does not know clip.mp4.
    """

    _is_intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        late = rest[: rest.index("--")] if "--" in rest else rest
        if not rest or self._subparsers or self._is_intermixed:
            return found, rest
        if not any(word.startswith("-") for word in late):
            self._is_intermixed = True
            try:
                found, rest = self.parse_known_intermixed_args(args)
            finally:
                self._is_intermixed = False
        if rest:  # here, and not by the parser of all commands, so that the help of the command is named
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found, rest

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Refuse an empty value, mostly a shell variable that is not set: as a path it means the working folder."""
        if "" in arg_strings and action.nargs != argparse.PARSER and action.type is not any_text:
            raise argparse.ArgumentError(action, "the value is empty; give one, or leave it out")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"reelgraph: {plain(without_secrets(message))}; see {self.prog} --help\n")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser. Only the chosen command is imported; all of them for `--help` and for an unknown word."""
    parser = _Parser(prog="reelgraph", description=DESCRIPTION, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"reelgraph {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    known = by_name(GROUP)
    chosen = next((word for word in words if not word.startswith("-")), "")
    for point, *others in [known[chosen]] if chosen in known else known.values():
        for other in others:
            text = f"reelgraph: command {point.name!r} is that of {point.value}, not of {other.value}; remove one"
            print(plain(text), file=sys.stderr)
        try:
            command = point.load()
        except Exception as err:  # of another package's command: the others must work
            if point.name == chosen or point.value.startswith(OURS):
                raise
            text = f"reelgraph: command {point.name!r} cannot be loaded ({point.value}): {err}"
            print(plain(text), file=sys.stderr)
            continue
        command.add_to(commands, point.name == chosen)
    return parser
