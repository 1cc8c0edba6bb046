"""A LocalCUDACluster with several workers per GPU. Imported only if there is a GPU: dask-cuda needs its bindings."""

from __future__ import annotations

import copy
from typing import Any

from dask_cuda import LocalCUDACluster

from pipeline.cluster.nanny import Nanny
from pipeline.cluster.worker import preloads


class SharedGPUCluster(LocalCUDACluster):  # type: ignore[misc]  # it ships no types
    """`workers_per_gpu` workers on each GPU; each sees its own GPU only and has one GPU slot.

    The stock class allows one worker per GPU and lets each see all of them. Its spilling of device memory
    does nothing for model runtimes, so it stays off; their own limits hold instead.
    """

    def __init__(self, gpus: list[str], workers_per_gpu: int, **options: Any) -> None:
        self._gpu_of = {f"gpu{gpu}-{k}": gpu for k in range(workers_per_gpu) for gpu in gpus}
        super().__init__(
            CUDA_VISIBLE_DEVICES=gpus,
            n_workers=len(self._gpu_of),
            device_memory_limit=None,
            worker_class=Nanny,
            resources={"GPU": 1},
            preload=preloads(),
            **options,
        )

    def new_worker_spec(self) -> dict[str, Any]:
        name = next(name for name in self._gpu_of if name not in self.worker_spec)
        spec = copy.deepcopy(self.new_spec)
        spec["options"].update(env={"CUDA_VISIBLE_DEVICES": self._gpu_of[name]}, plugins=set())
        return {name: spec}
