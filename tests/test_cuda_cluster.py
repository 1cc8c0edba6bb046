"""The cluster class for GPUs, started without one: dask-cuda has a switch for exactly that."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, dask
os.environ["DASK_CUDA_TEST_DISABLE_DEVICE_SPECIFIC"] = "1"
from distributed import Client
from pipeline.cluster.cuda import SharedGPUCluster

def seen(dask_worker):
    state = dask_worker.state
    return [os.environ["CUDA_VISIBLE_DEVICES"], int(state.total_resources["GPU"]), state.nthreads]

if __name__ == "__main__":
    with SharedGPUCluster(gpus=["0", "1"], workers_per_gpu=2, threads_per_worker=3,
                          host="127.0.0.1", security=True,
                          dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        client.wait_for_workers(4, timeout=60)
        assert {address.partition(":")[0] for address in client.nthreads()} == {"tls"}
        print(json.dumps(sorted(client.run(seen).values())))
"""


@pytest.mark.slow
def test_two_workers_on_each_of_two_gpus(tmp_path: object) -> None:
    pytest.importorskip("cuda.bindings", reason="the CUDA bindings are not installed: pip install 'reelgraph[cu13]'")
    script = os.path.join(str(tmp_path), "start.py")
    with open(script, "w") as file:
        file.write(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    # each worker sees one GPU only, has one GPU slot, and two more slots that decode and write
    assert done.stdout.strip() == str([["0", 1, 3], ["0", 1, 3], ["1", 1, 3], ["1", 1, 3]]).replace("'", '"')
