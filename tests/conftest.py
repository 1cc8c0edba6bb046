"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from distributed.security import Security

from pipeline.machine.device import Device
from pipeline.machine.gpus import visible_gpus
from tests.devices import DEVICES, device_of, gpu_is_required
from tests.own import own as own  # a fixture
from tests.skips import pytest_make_collect_report as pytest_make_collect_report  # hooks
from tests.skips import pytest_runtest_makereport as pytest_runtest_makereport

TLS_ROLES = ("scheduler", "worker", "client")
REPOSITORY = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the modules that have slow tests: side by side, one that starts last would be waited for alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def workflows() -> Path:
    return REPOSITORY / "workflows"


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real clips, faces and weights; see REELGRAPH_DATA."""
    path = Path(os.environ.get("REELGRAPH_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (path / "videos").is_dir():
        pytest.skip(f"no test data at {path}; set REELGRAPH_DATA")
    return path


@pytest.fixture(scope="session", autouse=True)
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the session's own, for this process and those it starts."""
    path = tmp_path_factory.mktemp("cache")
    os.environ["REELGRAPH_CACHE"] = str(path)
    return path


@pytest.fixture(scope="session", params=DEVICES if len(DEVICES) > 1 else None)
def device(request: pytest.FixtureRequest) -> Device:
    """Each device that this machine's suite runs on (tests.devices). A single one is no parameter: those of a session
    change the order of all tests."""
    return device_of(getattr(request, "param", DEVICES[0]))


@pytest.fixture(scope="session")
def gpu() -> Device:
    """For tests marked `gpu` that make no sense on a CPU: skipped without one, failed where one is required."""
    if not visible_gpus() and not gpu_is_required():
        pytest.skip("no GPU is visible")
    return device_of("cuda")


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """Settings of Dask for a certificate that is its own authority, as a site would make one for a shared cluster."""
    own = Security.temporary()
    for name, text in (("cert.pem", own.tls_client_cert), ("key.pem", own.tls_client_key)):
        (tmp_path / name).write_text(text)
    pairs = {(role, part): str(tmp_path / f"{part}.pem") for role in TLS_ROLES for part in ("cert", "key")}
    settings = {f"distributed.comm.tls.{role}.{part}": path for (role, part), path in pairs.items()}
    return {"distributed.comm.tls.ca-file": str(tmp_path / "cert.pem"), **settings}
