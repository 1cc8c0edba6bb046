"""Addresses on which scheduler and dashboard listen, and the clients that they accept."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import Any

import dask
import psutil
import pytest
from distributed import LocalCluster
from distributed.core import rpc
from distributed.security import Security

from pipeline.cluster.options import ClusterOptions, check
from pipeline.cluster.starting import connect
from pipeline.errors import ClusterError


def test_a_taken_dashboard_port_gives_way_without_a_word() -> None:
    """Warnings are errors in this suite: Dask's about the port would end the run."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with connect(ClusterOptions(workers=1, device="cpu", dashboard_port=port)) as cluster:
            assert cluster.dashboard.startswith("http://127.0.0.1:")
            assert f":{port}/" not in cluster.dashboard


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "203.0.113.1"}, r"cannot listen on --host 203\.0\.113\.1: .*; give an address of this machine"),
        ({"host": "::1"}, "cannot listen on --host ::1: IPv6 is not supported; give"),
        ({"dashboard_port": 65536}, "--dashboard-port 65536: ports are 0 "),
        ({"dashboard_port": -1}, "--dashboard-port -1: ports are 0 "),
    ],
)
def test_where_nobody_can_listen(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ClusterError, match=message) as caught:
        check(ClusterOptions(device="cpu", **options))
    assert "\n" not in str(caught.value)


def answers(address: str, security: Security) -> bool:
    async def knock() -> None:
        async with rpc(address, connection_args=security.get_connection_args("client"), timeout=2) as there:
            await asyncio.wait_for(there.identity(), 5)

    try:
        asyncio.run(knock())
    except (OSError, TypeError, RuntimeError, TimeoutError):
        return False
    return True


@pytest.mark.slow
def test_another_user_of_the_machine_is_not_let_in() -> None:
    """Loopback is open to every user: scheduler, worker and nanny ask for the run's own certificate."""
    with connect(ClusterOptions(workers=1, device="cpu")) as cluster:
        info = cluster.client.scheduler_info(n_workers=-1)["workers"]
        addresses = [cluster.client.scheduler.address, *info, *(facts["nanny"] for facts in info.values())]
        assert len(addresses) == 3
        for address in addresses:
            assert address.startswith("tls://127.0.0.1:")
            assert not answers(address, Security.temporary())
            assert not answers(address.replace("tls://", "tcp://"), Security(require_encryption=False))
        assert answers(addresses[0], cluster.client.security)
        cluster.restart(list(info))
        assert list(cluster.client.run(lambda: 1).values()) == [1]
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [one for process in processes for one in process.net_connections("tcp") if one.status == "LISTEN"]
        assert len(sockets) >= 4
        assert {one.laddr.ip for one in sockets} == {"127.0.0.1"}
        assert "without TLS" not in cluster.description


@pytest.mark.slow
def test_an_open_cluster_says_what_it_opens() -> None:
    with connect(ClusterOptions(workers=1, device="cpu", insecure=True)) as cluster:
        address = cluster.client.scheduler.address
        assert address.startswith("tcp://127.0.0.1:")
        assert answers(address, Security(require_encryption=False))
        assert cluster.description.endswith(f"without TLS: a process that reaches {address} can run code as you")


@pytest.mark.slow
def test_certificates_of_dasks_configuration_are_taken(certificate: dict[str, str]) -> None:
    """With them workers elsewhere can join a run that listens on an address of this machine."""
    with dask.config.set(certificate), connect(ClusterOptions(workers=1, device="cpu", host="0.0.0.0")) as cluster:
        address = cluster.client.scheduler.address
        assert address.startswith("tls://")
        assert answers(address, Security(require_encryption=True))
        assert not answers(address, Security.temporary())


def test_more_workers_than_cores_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr("pipeline.cluster.starting.available_cores", lambda: 2)
    with connect(ClusterOptions(workers=2, device="cpu", dashboard_port=0), notes.append):
        assert notes == []
    monkeypatch.setattr("pipeline.cluster.starting.available_cores", lambda: 1)
    with connect(ClusterOptions(workers=2, device="cpu", dashboard_port=0), notes.append):
        assert notes == ["2 workers share 1 core: more workers than cores make a run slower"]


def test_a_cluster_that_closes_too_slowly_leaves_no_handler_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler of Dask's logger may serve the program's own loggers; Dask silences it until its cluster is closed."""
    handler = logging.StreamHandler()
    handler.setLevel(logging.INFO)
    logging.getLogger("distributed").addHandler(handler)
    clusters = []
    close = LocalCluster.close

    def slowly(self: LocalCluster, timeout: float | None = None) -> None:
        clusters.append(self)
        raise TimeoutError

    try:
        with monkeypatch.context() as patch:
            patch.setattr(LocalCluster, "close", slowly)
            with connect(ClusterOptions(workers=1, dashboard_port=0)):
                assert handler.level > logging.CRITICAL
        assert handler.level == logging.INFO
    finally:
        logging.getLogger("distributed").removeHandler(handler)
        for cluster in clusters:
            with contextlib.suppress(Exception):  # its event loop has ended
                close(cluster, timeout=1)
