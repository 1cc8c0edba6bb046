"""Where scheduler and dashboard listen."""

from __future__ import annotations

import socket
from typing import Any

import pytest

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
