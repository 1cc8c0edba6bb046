"""Following a folder that fills: its inputs are taken in rounds, each as soon as its writer has finished it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.engine.source import InputRef
from pipeline.errors import InputError, UsageError
from pipeline.files.journal import JournalReader
from pipeline.text import duration, plural

MOST_IN_A_ROUND = 64
"""Inputs of a round at most: between two rounds it is said how far behind the run is."""
_POLL_SECONDS = 0.5
_POLL_SHARE = 5
"""Time between two looks at the folder, in times that a look takes: a large one is not looked at all the time."""
_NAMED = 3

State = tuple[int, int]
"""Size and time of the last change (ns) of a file or a folder."""
Identity = tuple[int, int]
"""Device and number of a file or a folder, which it keeps when it is renamed."""


class Run(Protocol):
    """The run that a follower feeds."""

    def must_stop(self) -> bool: ...
    def known_paths(self) -> Collection[str]:
        """Return the paths of the inputs that the store has, or has recorded as unusable."""
        ...

    def note(self, text: str) -> None: ...
    def give_up(self, path: str, error: str) -> None:
        """Record an input that can never be analysed."""
        ...


@dataclass
class _Waiting:
    identity: Identity
    state: State
    since: float
    """Time, in seconds since 1970, from which the state has been seen, or is known to have been."""


class Follower:
    """The inputs of a folder, by the source that finds them. A recorder may have left its journal there."""

    def __init__(self, folder: str, find: Callable[[], Sequence[InputRef]], settle_seconds: float) -> None:
        """`settle_seconds`: time without a change after which a file counts as finished. Raises UsageError."""
        self.folder, self.find, self.settle_seconds = Path(os.path.abspath(folder)), find, settle_seconds
        if not self.folder.is_dir() or not os.access(self.folder, os.R_OK | os.X_OK):
            raise UsageError(f"--follow {folder}: not a folder that can be read; make it, or check its permissions")
        self.journal = JournalReader(self.folder)
        self.clock = time.time
        self._waiting: dict[str, _Waiting] = {}
        self._taken: dict[str, State] = {}
        self._removed_seen = 0
        self._is_first_look = True

    def rounds(self, run: Run) -> Iterator[list[InputRef]]:
        """Yield inputs that are finished and were not taken yet, oldest first, until the run must stop."""
        known = set(run.known_paths())
        while not run.must_stop():
            began = time.monotonic()
            ready = self._look(run)
            if ready:
                chosen = [ref for _, ref in ready[:MOST_IN_A_ROUND]]
                fresh = [at for at, ref in ready if ref.path not in known]
                if fresh:
                    oldest, newest = (duration(max(0.0, self.clock() - at)) for at in (fresh[0], fresh[-1]))
                    run.note(f"{plural(len(fresh), 'input')} to analyse: finished {_between(newest, oldest)} ago")
                for ref in chosen:
                    self._taken[ref.path] = self._waiting.pop(ref.path).state
                yield chosen
                continue
            until = began + max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - began))
            while time.monotonic() < until and not run.must_stop():
                time.sleep(0.1)

    def _look(self, run: Run) -> list[tuple[float, InputRef]]:
        """Return the inputs that are finished, with the time of their last change, oldest first."""
        now, ready = self.clock(), []
        self.journal.refresh()
        try:
            refs = self.find()
        except InputError:  # nothing there yet
            refs = []
        here: set[str] = set()
        states: dict[Identity, State] = {}
        for ref in refs:
            try:
                found = os.stat(ref.path)
            except OSError:
                continue
            here.add(ref.path)
            identity, state = (found.st_dev, found.st_ino), (found.st_size, found.st_mtime_ns)
            states[identity] = state
            if self._taken.get(ref.path) == state:
                continue
            changed = state[1] / 1e9
            seen = self._waiting.get(ref.path)
            if seen is None:
                # The clock of another machine may be wrong: it is asked only about what was there before the run.
                since = min(now, changed) if self._is_first_look else now
                self._waiting[ref.path] = seen = _Waiting(identity, state, since)
            elif seen.state != state:
                seen.state, seen.since = state, now
            if now - seen.since >= self.settle_seconds or self._is_journalled(ref.path, state):
                ready.append((changed, ref))
        self._notice_removed(here, states, run)
        self._is_first_look = False
        return sorted(ready, key=lambda one: (one[0], one[1].path))

    def _is_journalled(self, path: str, state: State) -> bool:
        """Return whether the writer of the folder says that a file is finished."""
        folder, name = os.path.split(path)
        return self.journal.finished.get(name) == state[0] and folder == str(self.folder)

    def _notice_removed(self, here: Collection[str], states: Mapping[Identity, State], run: Run) -> None:
        """Report the inputs that were removed before they were analysed, but not those that have another name now.

        `states`: of the files that are there. One that is smaller or older is another file with a number used again.
        """
        waiting = {path: one for path, one in self._waiting.items() if path not in here}
        then_and_now = ((path, one.state, states.get(one.identity)) for path, one in waiting.items())
        gone = [path for path, then, now in then_and_now if now is None or now[0] < then[0] or now[1] < then[1]]
        removed = list(self.journal.removed)
        if len(removed) > self._removed_seen:
            stored = set(run.known_paths())
            # What a recorder removed before this folder was ever followed, was not waited for.
            if self._removed_seen or any(os.path.dirname(path) == str(self.folder) for path in stored):
                known = {*stored, *gone, *self._taken}
                paths = (str(self.folder / name) for name in removed[self._removed_seen :])
                gone += [path for path in paths if path not in known]
        self._removed_seen = len(removed)
        for path in waiting:
            del self._waiting[path]
        for path in gone:
            run.give_up(path, f"{path} was removed before it was analysed")
        if gone:
            more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
            names = ", ".join(os.path.basename(path) for path in gone[:_NAMED])
            run.note(f"{plural(len(gone), 'input')} removed before analysis: {names}{more}")


def _between(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
