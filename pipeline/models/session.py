"""ONNX Runtime sessions for a device, run in batches that fit its memory."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.errors import ModelError
from pipeline.machine.device import Device
from pipeline.models.card import ModelCard
from pipeline.models.weights import cache_folder

Result = TypeVar("Result")

PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""Execution providers that each kind of device needs of ONNX Runtime, best first."""

MEMORY_SHARES = {
    "mtcnn pnet": 0.21,
    "mtcnn rnet": 0.05,
    "mtcnn onet": 0.09,
    "detector": 0.35,
    "recogniser": 0.25,
    "attribute": 0.12,
    "Emotion": 0.02,
    "spoofing": 0.01,
    "feature": 0.5,
    "keypoint": 0.5,
    "matcher": 0.5,
    "object": 0.5,
}
"""Part of Device.memory_bytes that one session of a process may take. ONNX Runtime limits sessions one by one. The
parts add up to the whole with a detector, a recogniser, four attributes and the two networks against spoofing loaded.
Features of whole pictures, keypoints, matchers and objects seldom stand beside all of these.
Age, gender and race are large networks (VGG-Face's), emotion is a small one. P-Net sees whole frames; R-Net and O-Net
see patches of 24 and 48 pixels. Work that does not fit its part runs in smaller batches (run_in_batches)."""

ENGINE_PACKAGES = {
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "opencv": ("opencv-contrib-python-headless", "opencv-python", "opencv-python-headless", "opencv-contrib-python"),
    "dlib": ("dlib-bin", "dlib"),
}
"""Packages that may provide an engine, for engines whose package has another name."""


def engine_version(engine: str) -> str:
    """Return an engine's name and version, for example "onnxruntime 1.23.0", without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    for package in ENGINE_PACKAGES.get(engine, (engine,)):
        try:
            return f"{engine} {version(package)}"
        except PackageNotFoundError:
            continue
    return f"{engine} (not installed)"


def runtime_name() -> str:
    return engine_version("onnxruntime")


def detect_devices() -> tuple[str, ...]:
    """Return the kinds of device that this installation of ONNX Runtime was built for, slowest first.

    It does not look at drivers: a CUDA build lists "cuda" on a machine without a GPU.
    """
    import onnxruntime

    available = set(onnxruntime.get_available_providers())
    return tuple(kind for kind, providers in PROVIDERS.items() if providers[0] in available)


def create_session(model: bytes | Path, device: Device, memory_share: float = 1.0) -> Any:
    """Return an inference session of an ONNX model, serialised or in a file.

    It may take `memory_share` of the device's memory_bytes.

    Raises ModelError if the kind of device is unknown, or this ONNX Runtime cannot use it.
    """
    import onnxruntime

    if device.kind not in PROVIDERS:
        raise ModelError(f"unknown device {device.kind!r}; choose one of {', '.join(PROVIDERS)}")
    first = PROVIDERS[device.kind][0]
    if first not in onnxruntime.get_available_providers():
        raise ModelError(
            f"device {device.kind!r} needs {first}, which {runtime_name()} was built without; "
            "install onnxruntime-gpu, or use device cpu"
        )
    if device.kind == "tensorrt":
        # It rounds as CUDA would (use_tf32 below) and has no option for it; to change that, set the variable to 1.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    if device.kind != "cpu":
        _preload_libraries()
    elif device.memory_bytes is not None:
        _limit_cpu_arena(device.memory_bytes)
    if device.precision == "fp16":
        model = half(model)
    source = str(model) if isinstance(model, Path) else model
    session = onnxruntime.InferenceSession(source, _options(device), providers=_providers(device, memory_share))
    if session.get_providers()[0] != first:
        # ONNX Runtime falls back with a log line only; a run meant for a GPU must not crawl on the CPU unnoticed.
        raise ModelError(
            f"device {device.kind!r} number {device.index} did not start ({runtime_name()} fell back to "
            f"{session.get_providers()[0]}); check the driver and CUDA libraries, or use device cpu"
        )
    return session


def half(model: bytes | Path) -> bytes:
    """Return the same network in half precision, by ONNX Runtime's own converter.

    Inputs and outputs keep their types. So do operations that would lose too much or that have no half-precision
    kernel (the converter's list).

    Measured on a CPU with 33 photographs, Dlib's embeddings move by 0.0011 at most (threshold: 0.6). Fasnet's
    probabilities move by 0.003. mtcnn and yunet find the same faces; their boxes move by less than 0.1 pixel in the
    median. For one large face mtcnn kept another candidate, 83 pixels off, with landmarks within 2% of its width.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    graph = onnx.load_from_string(model) if isinstance(model, bytes) else onnx.load(str(model))
    with warnings.catch_warnings():  # about weights so small that they become the smallest number there is
        warnings.simplefilter("ignore")
        converted: bytes = convert_float_to_float16(graph, keep_io_types=True).SerializeToString()
    return converted


def open_weights(card: ModelCard, path: Path, device: Device, memory_share: float = 1.0) -> Any:
    """Return an inference session of a model's own file.

    Raises ModelError if it is not a graph or does not fit the memory, and as create_session does.
    """
    try:
        return create_session(path, device, memory_share)
    except ModelError:
        raise
    except Exception as error:  # ONNX Runtime has a class per status, without a common base class
        if is_out_of_memory(error):
            raise ModelError(
                f"{card.name} does not fit the memory of {device.kind} {device.index}; "
                "lower --workers-per-gpu, or raise --gpu-memory"
            ) from error
        raise ModelError(
            f"weights of {card.name} cannot be read: {path} ({str(error).splitlines()[0]}); "
            f"delete it and run: reelgraph models fetch {card.name}"
        ) from error


def uploaded(array: npt.NDArray[Any], device: Device) -> Any:
    """Return an array as a session of this device takes it (run_bound); copy it to a GPU once for all runs.

    On a CPU this is the array itself, which must not change meanwhile.
    """
    import onnxruntime

    where = "cpu" if device.kind == "cpu" else "cuda"
    return onnxruntime.OrtValue.ortvalue_from_numpy(array, where, device.index if where == "cuda" else 0)


def run_bound(session: Any, inputs: Mapping[str, Any]) -> list[npt.NDArray[Any]]:
    """Run a session and return all outputs as arrays; inputs are arrays, or results of `uploaded`."""
    binding = session.io_binding()
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, value)
        else:
            binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    session.run_with_iobinding(binding)
    results: list[npt.NDArray[Any]] = binding.copy_outputs_to_cpu()
    return results


@lru_cache(maxsize=1)
def _preload_libraries() -> None:
    """Load the CUDA and cuDNN libraries that pip packages brought, before the first session needs them."""
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()


_arena_bytes: list[int] = []
"""Limit of this process's arena in bytes, once there is one."""


def _limit_cpu_arena(memory_bytes: int) -> None:
    """Create one arena for all sessions of this process that use it; the first limit stays."""
    if _arena_bytes:
        return
    _arena_bytes.append(memory_bytes)
    import onnxruntime

    memory = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    grow_by_what_is_asked_for = 1
    arena = onnxruntime.OrtArenaCfg({"max_mem": memory_bytes, "arena_extend_strategy": grow_by_what_is_asked_for})
    onnxruntime.create_and_register_allocator(memory, arena)


def _options(device: Device) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, device.threads)
    options.inter_op_num_threads = 1
    # Fatal errors only. Others are raised as well, and run_in_batches recovers from a lack of memory.
    options.log_severity_level = 4
    # Several workers share the cores: a thread that spins between two operators takes one from its neighbour.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if device.kind == "cpu" and device.memory_bytes is not None:
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


def _providers(device: Device, memory_share: float) -> list[tuple[str, dict[str, Any]]]:
    cuda: dict[str, Any] = {
        "device_id": device.index,
        # Grow by the requested size; the default doubles, and overshoots a limit that two sessions share.
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "HEURISTIC",
        # ONNX Runtime's default rounds the operands of convolutions to 10 bits of mantissa (TF32) on Ampere and later.
        # That is too few for vectors that agree with a CPU's to a thousandth.
        "use_tf32": 0,
    }
    tensorrt: dict[str, Any] = {"device_id": device.index, "trt_engine_cache_enable": True}
    if device.memory_bytes is not None:
        limit = int(device.memory_bytes * memory_share)
        if device.kind == "tensorrt":
            # TensorRT uses memory of its own, beside the arena of the provider that runs the rest of the graph.
            limit //= 2
            tensorrt["trt_max_workspace_size"] = limit
        cuda["gpu_mem_limit"] = limit
    if device.kind == "tensorrt":
        engines = cache_folder() / "tensorrt"
        engines.mkdir(parents=True, exist_ok=True)
        tensorrt["trt_engine_cache_path"] = str(engines)
    options: dict[str, dict[str, Any]] = {"TensorrtExecutionProvider": tensorrt, "CUDAExecutionProvider": cuda}
    return [(name, options.get(name, {})) for name in PROVIDERS[device.kind]]


OUT_OF_MEMORY = (
    "out of memory",
    "failed to allocate memory",
    "available memory of",  # "Available memory of 0 is smaller than requested bytes of 1048576": the arena's limit
    "insufficient memory",  # OpenCV: "(-4:Insufficient memory) Failed to allocate 144000000 bytes"
    "bad_alloc",
    "bad allocation",
    "oom when allocating",  # TensorFlow
    "alloc_failed",  # CUDNN_STATUS_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of numpy, OpenCV or ONNX Runtime (which has no class for it) is a lack of memory."""
    if isinstance(error, MemoryError):
        return True
    message = str(error).lower()
    return any(phrase in message for phrase in OUT_OF_MEMORY)


_fits: dict[tuple[str, int, str, tuple[int, ...]], int] = {}
_fits_lock = threading.Lock()


def run_in_batches(
    device: Device, model: str, item_shape: tuple[int, ...], count: int, most: int, run: Callable[[int, int], Result]
) -> Iterator[tuple[int, int, Result]]:
    """Yield (start, stop, run(start, stop)) over `count` items, at most `most` at a time.

    If memory runs out, halve the batch and try again. The size that fits is remembered in this process for this
    device, model and shape of item. Raises ModelError if not even one item fits.
    """
    key = (device.kind, device.index, model, item_shape)
    start = 0
    while start < count:
        size = max(1, min(most, _fits.get(key, most), count - start))
        try:
            result = run(start, start + size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise ModelError(
                    f"model {model!r}: not even one item of shape {item_shape} fits the memory of "
                    f"{device.kind} {device.index}; lower workers_per_gpu, or use device cpu"
                ) from error
            with _fits_lock:
                _fits[key] = min(size // 2, _fits.get(key, size))
            continue
        yield start, start + size, result
        start += size


def rows_in_batches(
    device: Device, model: str, items: npt.NDArray[Any], width: int, most: int,
    run: Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]],
) -> npt.NDArray[np.float32]:  # fmt: skip
    """Return float32 (n, width): what `run` makes of the rows of an array, as `run_in_batches` does it."""
    rows = np.empty((len(items), width), np.float32)
    shape = items.shape[1:]
    for start, stop, result in run_in_batches(device, model, shape, len(items), most, lambda a, b: run(items[a:b])):
        rows[start:stop] = result
    return rows
