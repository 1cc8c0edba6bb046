"""A loader as a data set of Keras and of torch."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.loader.loader import Loader


OWN_WORKERS = "the loader has workers of its own; use it as it is, or with num_workers=0 of torch's DataLoader"


def refuse_copies() -> None:
    """Raise UsageError in one of several workers of torch's DataLoader: each would give all batches."""
    data = sys.modules.get("torch.utils.data")
    worker = data.get_worker_info() if data is not None else None
    if worker is not None and worker.num_workers > 1:
        raise UsageError(OWN_WORKERS)


def keras_dataset(loader: Loader, endless: bool) -> Any:
    """Return a PyDataset. In `fit` its batches come in the loader's order, whatever order Keras asks for.

    `fit` shuffles the numbers of batches by default. The loader has shuffled the items already, and batches that come
    in order can be made ahead. `predict` and `evaluate` ask for 0, 1, 2, ..., and get these. Raises UsageError if Keras
    would take something else for weights.
    """
    import keras

    items = loader.recipe.items
    given = [name for name in ("labels", "masks", "boxes") if getattr(items, name) is not None]
    if len(given) > 1:
        raise UsageError(
            f"Keras takes pictures, labels and weights; it would take {given[1]} for weights. Leave out one of "
            f"{' and '.join(given)}, or read batches from the loader itself"
        )

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.loader = loader
            self._readers: weakref.WeakSet[Any] = weakref.WeakSet()
            """Keras' readers that began an epoch. They read ahead, also between two epochs of `steps_per_epoch`."""
            self._order: Any = None
            """The numbers that Keras' reader goes through now; each of its readings has a list of its own."""
            self._first: Any = None
            """Reader and batch, after the first batch of a reading."""

        @property
        def workers(self) -> int:
            """Threads of Keras: the one that reads, since the loader has workers of its own."""
            return 1

        @workers.setter
        def workers(self, value: int) -> None:
            if value != 1:
                raise UsageError(f"workers={value} is for the loader; give it to pipeline.Loader")

        def __len__(self) -> int:
            return len(loader)

        def __getitem__(self, number: int) -> Any:
            asks = sys._getframe(1).f_locals
            reader = next((one for one in self._readers if one is asks.get("self")), None)
            if reader is None:  # the user, or Keras that looks at the first batches before it reads
                return loader.batch(loader.epoch, number)
            if reader.shuffle:
                return self._read(reader, asks.get("indices"))
            if number != loader.position:  # an earlier reading ended half way
                loader.restart(number)
            return loader.next()

        def _read(self, reader: Any, order: Any) -> Any:
            """Return the next batch; the first one again, if Keras only built a model with it (torch, JAX)."""
            first, self._first = self._first, None
            is_new, self._order = order is not self._order, order
            if is_new and first is not None and first[0]() is reader:
                return first[1]
            batch = loader.next()
            if is_new and len(loader) > 1:
                self._first = weakref.ref(reader), batch
            return batch

        def __iter__(self) -> Iterator[Any]:
            return self if endless else iter(loader)

        def __next__(self) -> Any:
            return loader.next()

        def on_epoch_begin(self) -> None:
            asks = sys._getframe(1).f_locals.get("self")
            if getattr(asks, "py_dataset", None) is self:
                self._readers.add(asks)

    return Batches()


def torch_dataset(loader: Loader, device: Any, channels_first: bool) -> Any:
    """Return an IterableDataset of tensors. Pictures become (n, channels, height, width) without a copy."""
    import torch
    from torch.utils.data import IterableDataset, get_worker_info

    def tensor(values: Any, is_picture: bool) -> Any:
        if isinstance(values, list | tuple):
            return [tensor(one, False) for one in values]
        values = np.asarray(values)
        if values.dtype.kind not in "biufc":
            raise UsageError(f"torch has no tensors of {values.dtype}; give labels that are numbers")
        if not values.flags.writeable or values.dtype.kind not in "fiub":
            values = values.copy()
        found = torch.from_numpy(values.astype(np.int64) if values.dtype.kind in "iu" and not is_picture else values)
        if is_picture and channels_first and found.ndim == 4:
            found = found.permute(0, 3, 1, 2)
        if device is None:
            return found
        is_gpu = torch.device(device).type == "cuda"
        return (found.pin_memory() if is_gpu else found).to(device, non_blocking=is_gpu)

    class Batches(IterableDataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(loader)

        def __reduce__(self) -> Any:
            raise UsageError(OWN_WORKERS)

        def __iter__(self) -> Iterator[Any]:
            if get_worker_info() is not None:
                raise UsageError(OWN_WORKERS)
            for batch in loader:
                if isinstance(batch, tuple):
                    yield tuple(tensor(values, at == 0) for at, values in enumerate(batch))
                else:
                    yield tensor(batch, True)

    return Batches()
