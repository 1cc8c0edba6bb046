"""Batches for training: this package's loader beside Keras' generator, Keras' PyDataset and torch's DataLoader.

    make bench-loader
    make bench-loader ARGS="--seconds 3 --torch /path/to/python"

All contestants rotate, shift, shear, zoom and flip with bilinear interpolation, and rescale to 0 to 1. Pictures of the
same parameters are compared first. The arrays are made up, 32 px. The JPEGs, 299 px, are made of the data folder's
pictures ($REELGRAPH_DATA; without it, of installed packages), and leave the page cache before each contestant reads
them. torch runs with the Python of `--torch`, in which torch and torchvision are installed; without it, it is left out.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Rows, alone, contestant, environment, explain, parser, pictures_at_hand, say, show, write_json

RANGES = {
    "rotation_range": 20, "width_shift_range": 0.1, "height_shift_range": 0.1, "shear_range": 10.0,
    "zoom_range": 0.1, "horizontal_flip": True, "rescale": 1 / 255,
}  # fmt: skip
BATCH = 32
ARRAYS, SIDE = 10_000, 32
JPEGS, LARGE = 2_000, 299
STEPS = 1.0
"""Time that the consumer sleeps, in batches of this package without workers."""
CONTESTANTS = ("reelgraph", "keras generator", "keras PyDataset", "torch DataLoader")
HOW = {
    "keras generator": "ImageDataGenerator(...).flow or flow_from_directory, a thread of the process itself; it has no "
    "workers, and is shown at 0",
    "keras PyDataset": "a PyDataset that calls the generator's transform, with workers=N, use_multiprocessing=True, by "
    "Keras' own queue, as model.fit reads it; at 0 workers read by its numbers",
    "torch DataLoader": "DataLoader(num_workers=N) over a data set with torchvision v2: RandomAffine (bilinear), "
    "RandomHorizontalFlip, ToDtype(scale); decode_image for JPEGs; one thread in each worker",
    "images/s": "of whole batches of 32, float32, after 3 batches for the start, over --seconds",
    "per core": "images for each second of CPU time, of the process and its workers",
    "waits": "share of the time that a consumer waits, which sleeps --step seconds after each batch (0: as long as "
    "this package takes for a batch in the process itself)",
    "cold": "share of the files' pages that were not in the page cache when the contestant began (mincore)",
}  # fmt: skip


def main() -> None:
    options = parser(__doc__, "bench-loader.json", "bench-loader")
    options.add_argument("--seconds", type=float, default=5.0, help="seconds of each measurement")
    options.add_argument("--workers", type=int, nargs="+", default=(0, 1, 2, 3, 4), help="numbers of workers")
    options.add_argument("--step", type=float, default=0.0, help="seconds that the consumer sleeps after a batch")
    options.add_argument("--torch", help="Python with torch and torchvision (default: this one, if it has them)")
    options.add_argument("--parts", nargs="+", choices=("arrays", "jpegs"), default=("arrays", "jpegs"))
    chosen = contestant(options, {name: partial(measure, name) for name in CONTESTANTS})
    chosen.folder.mkdir(parents=True, exist_ok=True)
    os.environ |= environment(chosen.folder, CUDA_VISIBLE_DEVICES="", TF_CPP_MIN_LOG_LEVEL="3")
    result: dict[str, Any] = {"how": HOW, "pictures": compared()}
    show("Pictures of the same parameters", ("=with", "most=most:.1f", "mean=mean:.2f"), result["pictures"])
    for part in chosen.parts:
        folder = make_jpegs(chosen.folder / "jpegs") if part == "jpegs" else None
        result[part] = race(chosen, folder)
        columns = (
            "=name", "workers", "images/s=images_per_second:,.0f", "per core=per_core:,.0f",
            "times keras=times_keras:.1f", "times one core=gain:.2f", "waits=waits:.0%", "cold=cold:.0%",
        )  # fmt: skip
        show(f"{part}: images per second, {os.cpu_count()} cores", columns, result[part])
    explain(HOW)
    write_json(chosen.json, result)


def race(chosen: argparse.Namespace, folder: Path | None) -> Rows:
    """Measure every contestant with every number of workers, alone and with a consumer that sleeps."""
    rows: Rows = []
    step = chosen.step
    for name in CONTESTANTS:
        python = chosen.torch or sys.executable if name.startswith("torch") else sys.executable
        if name.startswith("torch") and not _has_torch(python, folder is not None):
            reads = " that reads JPEGs" if folder else ""
            say(f"torch DataLoader: left out, --torch names no Python with torch and torchvision{reads}")
            continue
        for workers in (0,) if name == "keras generator" else chosen.workers:
            settings = {"workers": workers, "seconds": chosen.seconds, "folder": folder and str(folder)}
            say(f"{name}, {workers} workers")
            row, _ = alone(chosen.folder, name, python, **settings, step=step)
            step = row["step"]
            rows.append({"name": name, "workers": workers, **row})
    by_name = {(row["name"], row["workers"]): row["images_per_second"] for row in rows}
    for row in rows:
        row["times_keras"] = row["images_per_second"] / by_name["keras generator", 0]
        row["gain"] = row["images_per_second"] / by_name.get((row["name"], 0), row["images_per_second"])
    return rows


def _has_torch(python: str, jpegs: bool) -> bool:
    import subprocess

    code = "import torch, torchvision"
    if jpegs:  # wheels for CUDA do not load their readers beside a torch for the CPU
        code += "; torchvision.io.encode_jpeg(torch.zeros(3, 8, 8, dtype=torch.uint8))"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0


def measure(name: str, workers: int, seconds: float, folder: str | None, step: float) -> dict[str, Any]:
    """Take batches for some seconds; return images per second, per second of CPU time, and the consumer's waiting."""
    import psutil

    cold = dropped(Path(folder)) if folder else None
    batches = {
        "reelgraph": reelgraph_batches, "keras generator": keras_batches, "keras PyDataset": dataset_batches,
        "torch DataLoader": torch_batches,
    }[name](workers, folder)  # fmt: skip
    for _ in range(3):
        pictures = next(batches)
    assert tuple(pictures.shape[1:]) in ((SIDE, SIDE, 3), (3, SIDE, SIDE), (LARGE, LARGE, 3), (3, LARGE, LARGE))
    assert 0 <= float(pictures.min()) <= float(pictures.max()) <= 1.001
    before = _cpu_seconds(psutil.Process())
    images, spent, _ = taken(batches, seconds, 0)
    cpu = _cpu_seconds(psutil.Process()) - before
    step = step or round(STEPS * BATCH * spent / images, 4)
    _, fed, waited = taken(batches, seconds, step)
    found = {"images_per_second": images / spent, "per_core": images / max(cpu, 1e-9), "waits": waited / fed}
    print(json.dumps({**found, "step": step, "cold": cold}), flush=True)
    os._exit(0)  # Keras' and torch's pools may not end by themselves


def taken(batches: Iterator[Any], seconds: float, step: float) -> tuple[int, float, float]:
    """Take batches for some seconds, and sleep after each; return images, seconds, and seconds of waiting."""
    began, waited, images = time.perf_counter(), 0.0, 0
    while time.perf_counter() < began + seconds:
        asked = time.perf_counter()
        images += len(next(batches))
        waited += time.perf_counter() - asked
        time.sleep(step)
    return images, time.perf_counter() - began, waited


def _cpu_seconds(process: Any) -> float:
    """Return the CPU time of a process and its children. Those that have ended count too, as Keras ends its own."""
    import psutil

    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
        except psutil.Error:
            continue
    return total


def arrays() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ARRAYS, SIDE, SIDE, 3), dtype=np.uint8)


def reelgraph_batches(workers: int, folder: str | None) -> Iterator[np.ndarray]:
    import pipeline

    size = (LARGE, LARGE) if folder else None
    loader = pipeline.Loader(folder or arrays(), BATCH, pipeline.Augment(**RANGES), workers=workers, image_size=size)
    while True:
        batch = loader.next()
        yield batch[0] if isinstance(batch, tuple) else batch


def _keras_generator() -> Any:
    import warnings

    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    warnings.simplefilter("ignore")
    return ImageDataGenerator(**RANGES)


def keras_batches(workers: int, folder: str | None) -> Iterator[np.ndarray]:
    generator = _keras_generator()
    flow = (
        generator.flow_from_directory(folder, (LARGE, LARGE), batch_size=BATCH)
        if folder
        else generator.flow(arrays(), batch_size=BATCH)
    )
    while True:
        batch = next(flow)
        yield batch[0] if isinstance(batch, tuple) else batch


def dataset_batches(workers: int, folder: str | None) -> Iterator[np.ndarray]:
    """Read a PyDataset as `fit` does: through Keras' queue, filled by its pool of processes."""
    import keras
    from keras.src.trainers.data_adapters.py_dataset_adapter import OrderedEnqueuer

    generator, paths = _keras_generator(), sorted(map(str, Path(folder).rglob("*.jpg"))) if folder else []
    pictures = None if folder else arrays()

    class Pictures(keras.utils.PyDataset):
        def __len__(self) -> int:
            return (len(paths) or ARRAYS) // BATCH

        def __getitem__(self, number: int) -> np.ndarray:
            return np.stack([self._one(k) for k in range(number * BATCH, (number + 1) * BATCH)])

        def _one(self, k: int) -> np.ndarray:
            if pictures is not None:
                picture = pictures[k].astype(np.float32)
            else:
                picture = keras.utils.img_to_array(keras.utils.load_img(paths[k], target_size=(LARGE, LARGE)))
            return generator.standardize(generator.random_transform(picture))

    data = Pictures(workers=workers, use_multiprocessing=workers > 0)
    if not workers:
        while True:
            yield from (data[k] for k in range(len(data)))
    while True:
        queue = OrderedEnqueuer(data, workers=workers, use_multiprocessing=True, max_queue_size=10, shuffle=True)
        queue.start()
        for number, batch in enumerate(queue.get()):
            yield batch
            if number + 1 == len(data):
                break
        queue.stop()


def torch_batches(workers: int, folder: str | None) -> Iterator[Any]:
    import torch
    from torchvision.io import decode_image
    from torchvision.transforms import InterpolationMode, v2

    shift = (RANGES["width_shift_range"], RANGES["height_shift_range"])
    transform = v2.Compose([
        v2.RandomAffine(RANGES["rotation_range"], shift, (0.9, 1.1), RANGES["shear_range"], InterpolationMode.BILINEAR),
        v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
    ])  # fmt: skip
    paths = sorted(map(str, Path(folder).rglob("*.jpg"))) if folder else []
    pictures = None if folder else torch.from_numpy(arrays()).permute(0, 3, 1, 2)

    class Pictures(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(paths) or ARRAYS

        def __getitem__(self, k: int) -> Any:
            return transform(decode_image(paths[k]) if pictures is None else pictures[k])

    data = torch.utils.data.DataLoader(
        Pictures(), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    while True:
        yield from data


def compared() -> Rows:
    """Return the difference of this package's warp and Keras', in grey levels, on a photograph of 299 px."""
    import warnings

    import cv2
    import skimage.data
    from keras.src.legacy.preprocessing.image import apply_affine_transform

    from pipeline.loader.augment import Augment, Augmenter, Changes

    warnings.simplefilter("ignore")
    picture = cv2.resize(skimage.data.astronaut(), (LARGE, LARGE), interpolation=cv2.INTER_AREA)
    rng, most, mean = np.random.default_rng(0), 0.0, []
    for _ in range(20):
        theta, x, y, shear = (float(rng.uniform(-most, most)) for most in (20, 30, 30, 10))
        zoom_x, zoom_y = rng.uniform(0.9, 1.1, 2).tolist()
        wanted = apply_affine_transform(
            picture.astype(np.float32), theta, x, y, shear, zoom_x, zoom_y, row_axis=0, col_axis=1, channel_axis=2
        )
        ours = Augmenter(Augment()).geometry(picture, Changes(theta, x, y, shear, zoom_x, zoom_y))
        difference = np.abs(ours - wanted)
        most, mean = max(most, float(difference.max())), [*mean, float(difference.mean())]
    return [{"with": "keras", "most": most, "mean": float(np.mean(mean))}]


def make_jpegs(folder: Path) -> Path:
    """Return JPEGs of 299 px in two classes, parts of the data folder's pictures; they are made once."""
    import cv2

    if len(list(folder.rglob("*.jpg"))) == JPEGS:
        return folder
    sources = pictures_at_hand("pairs", "faces")
    rng = np.random.default_rng(1)
    for number in range(JPEGS):
        picture = cv2.imread(str(sources[number % len(sources)]))
        side = int(min(picture.shape[:2]) * rng.uniform(0.6, 1))
        top, left = (int(rng.integers(0, size - side + 1)) for size in picture.shape[:2])
        part = cv2.resize(picture[top : top + side, left : left + side], (LARGE, LARGE), interpolation=cv2.INTER_AREA)
        path = folder / f"class{number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), part, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return folder


def dropped(folder: Path) -> float:
    """Drop the files of a folder from the page cache; return the share of their pages that is then not in it."""
    paths = list(folder.rglob("*.jpg"))
    for path in paths:
        with path.open("rb") as file:
            os.fdatasync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return 1 - np.mean([_resident(path) for path in paths]).item()


def _resident(path: Path) -> float:
    """Return the share of a file's pages that lies in the page cache."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as pages:
        n = -(-len(pages) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * n)()
        start = ctypes.c_char.from_buffer(pages)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(start)), ctypes.c_size_t(len(pages)), found)
        del start
        if failed:
            raise OSError(ctypes.get_errno(), "mincore")
    return sum(one & 1 for one in found) / n


if __name__ == "__main__":
    main()
