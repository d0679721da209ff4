"""The options of ``p2pnet relay`` for limits and metrics. Rules R33, R40, R44, C1, C4."""

from __future__ import annotations

import json
import signal
from urllib.parse import urlsplit

import pytest
import trio

from p2pnet.protocols.relay import RelayServer
from p2pnet.protocols.relay.limits import room_for
from tests.commands.test_commands import LOOPBACK, events, run, running


@pytest.mark.sockets
def test_limits_are_shown_as_they_are_set() -> None:
    (told,) = events(run("relay", "--limits", "--json"))
    assert told["limits"] == dict(RelayServer().items())
    changed = ["--limit", "max_circuits=7", "--limit", "circuit_seconds=none"]
    done = run("relay", "--limits", *changed)
    assert done.returncode == 0
    limits, follows = done.stdout.decode().split("what follows for connections:\n")
    lines = dict(line.split() for line in limits.splitlines())
    assert lines["max_circuits"] == "7"
    assert lines["circuit_seconds"] == "none"
    assert lines["max_reservations"] == "128"
    lines = dict(line.split() for line in follows.splitlines())
    assert lines["max_connections"] == str(512 + 128 + 2 * 7)


@pytest.mark.sockets
def test_r44_what_follows_from_the_limits_for_connections_is_shown_beside_them() -> None:
    (told,) = events(run("relay", "--limits", "--json", "--limit", "max_reservations=1000"))
    room = room_for(RelayServer(max_reservations=1000))
    assert told["connections"] == {
        "max_connections": room.max_connections,
        "max_inbound_per_prefix": room.max_inbound_per_prefix,
    }


@pytest.mark.sockets
@pytest.mark.parametrize(
    "setting",
    ["nonsense=1", "max_circuits", "max_circuits=x", "max_circuits=0", "max_circuits=nan"],
)
def test_a_limit_that_makes_no_sense_is_refused(setting: str) -> None:
    done = run("relay", "--json", "--limit", setting)
    assert done.returncode == 1
    (told,) = events(done)
    assert "--limit" in str(told["message"])


@pytest.mark.sockets
async def test_a_running_relay_tells_its_metrics() -> None:
    options = ["--listen", LOOPBACK, "--metrics", LOOPBACK, "--limit", "max_circuits=7"]
    async with running("relay", *options) as relay:
        url = urlsplit(str((await relay.wait_event("metrics"))["url"]))
        assert url.hostname is not None
        assert url.port is not None
        stream = await trio.open_tcp_stream(url.hostname, url.port)
        async with stream:
            await stream.send_all(f"GET {url.path} HTTP/1.1\r\n\r\n".encode())
            data = b""
            async for chunk in stream:
                data += chunk
        assert b'p2pnet_relay_limit{name="max_circuits"} 7\n' in data
        assert await relay.stop(signal.SIGTERM) == 0


@pytest.mark.sockets
def test_metrics_where_somebody_else_listens_are_an_error() -> None:
    done = run("relay", "--json", "--listen", LOOPBACK, "--metrics", "/ip4/192.0.2.1/tcp/1")
    assert done.returncode == 1
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["event"] == "error"
    assert "--metrics" in told["remedy"]
    assert "--listen" not in told["remedy"]
    assert "192.0.2.1" in told["message"]
    assert run("relay", "--metrics", "/dns4/example.org/tcp/1").returncode == 2
