"""`pipeline.Loader`: batches of augmented pictures, in order, the same bytes for any number of workers."""

from __future__ import annotations

import logging
import operator
import os
import threading
import time
import weakref
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError
from pipeline.loader.batches import Made, Maker, Recipe, Rule
from pipeline.loader.consumers import keras_dataset, refuse_copies, torch_dataset
from pipeline.loader.items import items_of
from pipeline.loader.pool import Pool
from pipeline.loader.ring import Field
from pipeline.loader.watch import Watch
from pipeline.machine.cores import available_cores
from pipeline.machine.memory import FrameMemory

Array = npt.NDArray[Any]
_LOG = logging.getLogger("pipeline.loader")
_SAID = 20
"""Broken pictures that are named one by one; further ones are counted."""
_MOST_CLASSES = 1 << 20
"""Columns of one-hot labels; beyond, labels are ids and no classes."""
_SEED_BITS = 32
_SEEDS = range(-(1 << 63), 1 << 64)


class Loader:
    """Batches for training, in order, epoch after epoch.

        loader = pipeline.Loader("photos/", 32, pipeline.Augment(rotation_range=20), image_size=(224, 224))
        for images, labels in loader:    # one epoch
            ...

    Batches depend on source, seed, epoch and batch size alone: the number of workers changes no byte, and `state`
    continues in mid-epoch. The arrays of a batch are yours as long as you keep them.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int = 32,
        augment: Any = None,
        *,
        seed: int | None = 0,
        workers: int | None = None,
        image_size: tuple[int, int] | None = None,
        labels: Any = None,
        masks: Any = None,
        boxes: Any = None,
        weights: Any = None,
        axis: str | None = None,
        label: str | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        one_hot: bool = False,
        broken: Rule = "next",
        dtype: str | None = None,
        prefetch: int | None = None,
        grey: bool = False,
    ) -> None:
        """Prepare batches; workers start with the first one.

        - `source`: a folder (labels by sub-folder), files, a list file, tar files, an array (n, height, width,
          channels), or a run store
        - `augment`: an `Augment`, a function of a picture (and of a generator), a transform of albumentations or
          torchvision
        - `seed`: of order and augmentation; None draws one
        - `workers`: processes; 0 makes batches in this process; default: one for each core
        - `image_size`: height and width that pictures are resized to before they are augmented
        - `labels`, `masks` (n, height, width), `boxes` (for each picture (k, 4 and more): x, y, width, height, ...)
        - `weights`: weight of each picture in the loss; the last of a batch, (images, labels, weights) as Keras has it
        - `axis`, `label`: of a run store: rows to crop ("face", "object"), and the array that labels them
        - `one_hot`: give labels as rows with a 1 in the place of the class
        - `broken`: instead of a picture that cannot be read, "next": the next one; "zeros": a black one; "skip": none;
          "raise": an error
        - `dtype`: "float32" by default, as Keras has it; "uint8" if nothing is normalised
        - `prefetch`: batches that are made ahead; default: two for each worker

        Raises UsageError, InputError or StoreError.
        """
        batch_size = _whole("batch_size", batch_size, 1)
        self.workers = available_cores() if workers is None else _whole("workers", workers, 0)
        self._keeps_prefetch = prefetch is not None
        self.prefetch = max(1, 2 * self.workers if prefetch is None else _whole("prefetch", prefetch, 0))
        seed = int.from_bytes(os.urandom(_SEED_BITS // 8), "little") if seed is None else _whole("seed", seed)
        dtype = dtype if dtype is None or isinstance(dtype, str) else np.dtype(dtype).name
        if dtype not in (None, "float32", "float16", "uint8"):
            raise UsageError(f"dtype is {dtype!r}; choose float32, float16 or uint8")
        if broken not in ("next", "skip", "zeros", "raise"):
            raise UsageError(f"broken is {broken!r}; choose next, skip, zeros or raise")
        beside = {"masks": masks, "boxes": boxes, "weights": weights}
        items = items_of(source, image_size, labels, axis=axis, label=label, grey=grey, **beside)
        self.recipe = Recipe(items, augment, seed, broken, dtype)
        self._maker = Maker(self.recipe)
        self.batch_size, self.shuffle, self.drop_last, self.one_hot = batch_size, shuffle, drop_last, one_hot
        if drop_last and len(items) < batch_size:
            raise UsageError(f"drop_last leaves nothing: {len(items)} pictures are less than a batch of {batch_size}")
        known = items.labels
        if one_hot and (known is None or known.dtype.kind not in "iu" or known.ndim != 1 or known.min() < 0):
            raise UsageError("one_hot needs a label for each picture that is a whole number from 0")
        if one_hot and self._classes > _MOST_CLASSES:
            raise UsageError(f"one_hot would make rows of {self._classes} numbers; number the classes from 0")
        self.epoch = 0
        """Epoch of the next batch."""
        self.position = 0
        """Number of the next batch within its epoch."""
        self.broken: dict[int, str] = {}
        """Items that could not be read, with the reason."""
        self.indices: list[int] = []
        """Items of the last batch."""
        self.watch = Watch(self.workers)
        self._memory = FrameMemory()
        self._pool: Pool | None = None
        self._ordered = 0, 0
        """Epoch and batch that the workers are asked for next."""
        self._orders: dict[int, npt.NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to make the same batches. Raises UsageError if it shares memory."""
        if self.recipe.items.descriptors():
            raise UsageError("a loader of arrays stays in its process once its workers ran; make another one")
        left = {"_pool": None, "_closing": None, "_lock": None, "watch": Watch(self.workers)}
        return {**vars(self), **left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    @property
    def items(self) -> int:
        """Pictures of an epoch."""
        return len(self.recipe.items)

    @property
    def labels(self) -> Array | None:
        """Label of each item."""
        return self.recipe.items.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of labels that are numbers."""
        return self.recipe.items.class_names

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        """Shape and type of a picture of a batch, and of a mask."""
        return self._maker.fields()

    def __len__(self) -> int:
        """Return the batches of an epoch."""
        return self.items // self.batch_size if self.drop_last else -(-self.items // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """Yield the batches of this epoch that are left: (images, labels), and masks, boxes, weights if there are any.

        Without any of these a batch is its images alone.
        """
        refuse_copies()
        while True:
            yield self.next()
            if self.position == 0:
                return

    def next(self) -> Any:
        """Return the next batch; after the last one of an epoch comes the first of the next."""
        with self._lock:  # Keras reads in threads of its own
            asked = self.watch.begin()
            try:
                made, arrays = self._made()
                batch = self._batch(made, arrays, self.epoch)
                self._say(made.broken)
                self.watch.add(len(made.indices), asked)
            except BaseException:  # the next call asks for the same batch, for any number of workers
                self.close()
                raise
            is_last = self.position + 1 == len(self)
            self.epoch, self.position = (self.epoch + 1, 0) if is_last else (self.epoch, self.position + 1)
            return batch

    def batch(self, epoch: int, number: int) -> Any:
        """Return any batch of any epoch, made in this process."""
        epoch, number = _whole("epoch", epoch, 0), _whole("number", number)
        if not 0 <= number < len(self):
            raise UsageError(f"batch {number} does not exist; an epoch has {len(self)}")
        made, arrays = self._here(self._indices(epoch, number), epoch)
        return self._batch(made, arrays, epoch)

    def _made(self) -> tuple[Made, list[Array]]:
        if not self.workers:
            return self._here(self._indices(self.epoch, self.position), self.epoch)
        pool = self._running()
        while pool.ahead < self.prefetch:
            pool.order(self._ordered[0], self._indices(*self._ordered))
            epoch, number = self._ordered
            self._ordered = (epoch + 1, 0) if number + 1 == len(self) else (epoch, number + 1)
        return pool.take()

    def _here(self, indices: Sequence[int], epoch: int) -> tuple[Made, list[Array]]:
        n = len(indices)
        arrays = [
            self._memory.take((n * field.n_bytes,)).view(field.dtype).reshape(n, *field.shape) for field in self.fields
        ]
        made = self._maker.make(epoch, indices, arrays)
        return made, [array[: len(made.indices)] for array in arrays]

    def _batch(self, made: Made, arrays: list[Array], epoch: int) -> Any:
        """Return a batch that was made for an epoch, in the form that users get it."""
        self.indices = made.indices
        found: list[Any] = [arrays[0]]
        labels = self.labels
        if labels is not None:
            chosen = labels[made.indices]
            if self.one_hot:
                rows = np.zeros((len(chosen), self._classes), np.float32)
                rows[np.arange(len(chosen)), chosen] = 1
                chosen = rows
            found.append(chosen)
        found += arrays[1:]
        if made.boxes is not None:
            found.append(made.boxes)
        if self.recipe.items.weights is not None:
            found.append(self.recipe.items.weights[made.indices])
        return tuple(found) if len(found) > 1 else found[0]

    @cached_property
    def _classes(self) -> int:
        assert self.labels is not None
        return max(len(self.class_names), int(self.labels.max()) + 1)

    def _indices(self, epoch: int, number: int) -> tuple[int, ...]:
        if epoch not in self._orders:
            order = self._maker.draws.order(epoch, self.items) if self.shuffle else np.arange(self.items)
            kept = {one: self._orders[one] for one in (epoch - 1, epoch + 1) if one in self._orders}
            self._orders = {**kept, epoch: order}
        start = number * self.batch_size
        return tuple(self._orders[epoch][start : start + self.batch_size].tolist())

    def _running(self) -> Pool:
        if self._pool is None or self._pool.owner != os.getpid():  # a fork has none of the workers
            fields = self.fields
            self.recipe = replace(self.recipe, items=self.recipe.items.shared())
            self._maker = Maker(self.recipe)
            self._pool = Pool(self.recipe, fields, self.batch_size, self.workers, self.prefetch)
            self._closing = weakref.finalize(self, self._pool.close)
            self._ordered = self.epoch, self.position
        return self._pool

    def _say(self, broken: dict[int, str]) -> None:
        for index, reason in broken.items():
            if index in self.broken:
                continue
            self.broken[index] = reason
            if len(self.broken) <= _SAID:
                instead = {"next": "the next picture takes its place", "zeros": "a black one takes its place"}
                then = instead.get(self.recipe.broken, "it is left out")
                _LOG.warning("%s cannot be read (%s); %s", self.recipe.items.name(index), reason, then)
            elif len(self.broken) == _SAID + 1:
                _LOG.warning("further pictures cannot be read; loader.broken has them all")

    def state(self) -> dict[str, Any]:
        """Return the place of the next batch, as JSON values; `load_state` goes on there."""
        return {"epoch": self.epoch, "position": self.position, **self._identity}

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.recipe.seed, "items": self.items, "batch_size": self.batch_size, "shuffle": self.shuffle,
            "drop_last": self.drop_last, "data": self._digest,
        }  # fmt: skip

    @cached_property
    def _digest(self) -> int:
        """Digest of labels, classes, the names of the first and the last item, and weights if there are any."""
        items = self.recipe.items
        labels = None if items.labels is None else items.labels.tolist()
        parts: tuple[Any, ...] = (labels, items.class_names, items.name(0), items.name(len(items) - 1))
        if items.weights is not None:
            parts += (items.weights.tolist(),)
        return zlib.crc32(repr(parts).encode())

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue at the place of a `state`. Raises UsageError if this loader would give other batches."""
        if not isinstance(state, dict):
            raise UsageError(f"the state is {state!r}; it must be what loader.state() returned")
        for name, value in self._identity.items():
            if state.get(name, value if name == "data" else None) != value:
                told = f"{name}={state.get(name)!r}; this one has {value!r}"
                raise UsageError(f"the state is of a loader with {'other pictures' if name == 'data' else told}")
        epoch, position = _whole("epoch", state.get("epoch"), 0), _whole("position", state.get("position"), 0)
        if position >= len(self):
            raise UsageError(f"position {position} of the state is not a batch; an epoch has {len(self)}")
        self.close()
        self.epoch, self.position = epoch, position

    def restart(self, position: int = 0) -> None:
        """Go to a batch of this epoch, by default the first one."""
        self.load_state({**self.state(), "position": position})

    def close(self) -> None:
        """End the workers. The next batch starts them again."""
        if self._pool is not None:
            self._closing()
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def keras(self, *, endless: bool = False) -> Any:
        """Return a `keras.utils.PyDataset` for `model.fit`; the loader's workers make its batches.

        A `for` loop over it is an epoch, or with `endless`, as with Keras' own generators, never ends.
        """
        return keras_dataset(self, endless)

    def torch(self, *, device: Any = None, channels_first: bool = True) -> Any:
        """Return a `torch.utils.data.IterableDataset` whose iteration is one epoch of tensors.

        `device`: copy each batch there, by way of pinned memory if it is a GPU.
        """
        return torch_dataset(self, device, channels_first)

    def tune(self, seconds: float = 2.0, workers: Sequence[int] | None = None) -> dict[int, float]:
        """Measure images per second for several numbers of workers; keep the best of them, its knee.

        The loader stays at its place. `report` shows what was measured.
        """
        tried = [_whole("workers", count, 0) for count in workers or range(available_cores() + 2)]
        state = self.state()
        speeds = {}
        for count in tried:
            self.load_state(state)
            self._use(count)
            speeds[count] = self._speed(seconds)
        self.load_state(state)
        self.watch = Watch(self.workers)
        self.watch.tried = speeds
        self._use(self.watch.knee())
        self.watch.workers = self.workers
        return speeds

    def _use(self, workers: int) -> None:
        self.workers = workers
        if not self._keeps_prefetch:
            self.prefetch = max(1, 2 * workers)

    def _speed(self, seconds: float) -> float:
        """Return images per second, with all workers at work."""
        for _ in range(self.prefetch + 1):
            self.next()
        began, images = time.perf_counter(), 0
        while time.perf_counter() < began + seconds:
            self.next()
            images += len(self.indices)
        return images / (time.perf_counter() - began)

    def report(self, to: str | os.PathLike[str] = "loader.html") -> Path:
        """Write a page on speed, waiting, and use of CPU and GPU over time; return its path."""
        from pipeline.loader.report import write

        counts = Counter(self.broken.values())
        return write(self.watch, to, self.items, len(self.broken), counts.most_common(5))


def _whole(name: str, value: Any, least: int = _SEEDS.start) -> int:
    """Return a whole number of any type. Raises UsageError."""
    try:
        found = operator.index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}; it must be a whole number") from None
    if found < least:
        raise UsageError(f"{name} is {found}; it must be {least} or more")
    if found not in _SEEDS:
        raise UsageError(f"{name} is {found}; it must have 64 bits or fewer")
    return found
