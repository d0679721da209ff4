"""The probes on loopback: what is measured where there is no NAT, and what strangers cannot do."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.core.env import Env, SystemNetwork
from p2pnet.testing.nat_kind import Dependence, PortChoice
from p2pnet.testing.packet import TransportName
from p2pnet.testing.probing import (
    Classification,
    ObserverEndpoints,
    Plan,
    PunchResult,
    Unmeasurable,
    classify,
    punch,
    serve_observer,
    serve_rendezvous,
)
from p2pnet.testing.probing.lines import Lines
from p2pnet.testing.probing.messages import (
    Bye,
    Delegate,
    Meet,
    Message,
    Origin,
    Outcome,
    Probe,
    Probed,
    Seen,
    Where,
    decode_untrusted,
    encode,
)

pytestmark = pytest.mark.sockets

ROOT = Path(__file__).parents[2]
NETWORK = SystemNetwork()
JITTER = Env.system().jitter
ANYWHERE = Endpoint("127.0.0.1", 0)
BOTH: tuple[TransportName, ...] = ("udp", "tcp")


@asynccontextmanager
async def observing(*addresses: str) -> AsyncGenerator[ObserverEndpoints, None]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_observer, NETWORK, addresses, (0, 0))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def rendezvous(host: str = "127.0.0.1") -> AsyncGenerator[ObserverEndpoints, None]:
    async with trio.open_nursery() as nursery:
        yield await nursery.start(serve_rendezvous, NETWORK, Endpoint(host, 0))
        nursery.cancel_scope.cancel()


async def classified(
    transport: TransportName, observers: tuple[Endpoint, ...], *, patience: float = 3.0
) -> Classification:
    return await classify(
        NETWORK, transport, observers, jitter=JITTER, local=ANYWHERE, patience=patience
    )


async def ask(endpoint: Endpoint, message: Message) -> Message | None:
    """Ask over TCP; None if the other side closes instead."""
    async with await NETWORK.dial_tcp(endpoint) as stream:
        lines = Lines(stream)
        await lines.send(message)
        try:
            return await lines.receive()
        except (trio.EndOfChannel, trio.BrokenResourceError):
            return None


# ---- observers ----------------------------------------------------------------------------


@pytest.mark.parametrize("transport", BOTH)
async def test_loopback_is_open(transport: TransportName) -> None:
    async with observing("127.0.0.1", "127.0.0.2") as endpoints:
        found = await classified(transport, endpoints.of(transport))
    assert found.outside is not None
    assert found == Classification(
        transport=transport,
        outside=found.outside,
        translated=False,
        mapping=Dependence.ENDPOINT_INDEPENDENT,
        filtering=Dependence.ENDPOINT_INDEPENDENT,
        preserves_port=True,
        unsolicited="answered" if transport == "tcp" else None,
    )
    assert found.ports is PortChoice.PRESERVING


@pytest.mark.parametrize("transport", BOTH)
async def test_two_observers_with_an_address_each_are_partners(transport: TransportName) -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_observer, NETWORK)
        # Each knows the other by its address alone, until it has to dial.
        other = await nursery.start(
            partial(serve, ["127.0.0.2"], (0, 0), partner=Endpoint("127.0.0.1", 1))
        )
        one = await nursery.start(partial(serve, ["127.0.0.1"], (0, 0), partner=other.tcp[0]))
        found = await classified(transport, one.of(transport) + other.of(transport))
        nursery.cancel_scope.cancel()
    assert found.filtering is Dependence.ENDPOINT_INDEPENDENT


@pytest.mark.parametrize("transport", BOTH)
async def test_an_observer_that_cannot_probe_is_no_filter(transport: TransportName) -> None:
    async with observing("127.0.0.1") as one, observing("127.0.0.2") as other:
        with pytest.raises(Unmeasurable, match="another address"):
            await classified(transport, one.of(transport) + other.of(transport))


@pytest.mark.parametrize("transport", BOTH)
async def test_nobody_answers_where_it_is_blocked(transport: TransportName) -> None:
    async with observing("127.0.0.1", "127.0.0.2") as endpoints:
        gone = endpoints.of(transport)
    found = await classified(transport, gone, patience=0.1)
    assert found == Classification(transport=transport, blocked=True)


@pytest.mark.parametrize("transport", BOTH)
async def test_a_missing_primary_observer_is_no_blocking(transport: TransportName) -> None:
    async with observing("127.0.0.1") as one, observing("127.0.0.2") as other:
        gone = Endpoint("127.0.0.1", 1)
        observers = (gone, *one.of(transport), *other.of(transport))
        with pytest.raises(Unmeasurable, match=r"127\.0\.0\.1:1 does not answer"):
            await classified(transport, observers, patience=0.1)


async def test_an_observer_probes_for_its_partner_alone() -> None:
    order = Delegate("1", "tcp", Endpoint("127.0.0.1", 1))
    async with observing("127.0.0.1") as endpoints:
        assert await ask(endpoints.tcp[0], order) is None
    async with trio.open_nursery() as nursery:
        serve = partial(serve_observer, NETWORK, ["127.0.0.1"], (0, 0))
        endpoints = await nursery.start(partial(serve, partner=Endpoint("127.0.0.1", 1)))
        assert await ask(endpoints.tcp[0], order) == Probed("1", Outcome.REFUSED)
        nursery.cancel_scope.cancel()


async def test_an_observer_without_its_partner_says_that_it_is_unable() -> None:
    async with trio.open_nursery() as nursery:
        serve = partial(serve_observer, NETWORK, ["127.0.0.1"], (0, 0))
        endpoints = await nursery.start(partial(serve, partner=Endpoint("127.0.0.1", 1)))
        answer = await ask(endpoints.tcp[0], Probe("1", Origin.ADDRESS))
        assert answer == Probed("1", Outcome.UNABLE)
        nursery.cancel_scope.cancel()


async def test_an_observer_outlives_nonsense() -> None:
    async with observing("127.0.0.1") as endpoints:
        for noise in (b"noise\n", b"x" * 5000, encode(Bye()) + b"\n", b""):
            async with await NETWORK.dial_tcp(endpoints.tcp[0]) as stream:
                await stream.send_all(noise)
        socket = await NETWORK.bind_udp(ANYWHERE)
        await socket.send(b"noise", endpoints.udp[0])
        await socket.send(encode(Where("1")), endpoints.udp[0])
        data, source = await socket.receive()
        assert (decode_untrusted(data), source) == (Seen("1", socket.local), endpoints.udp[0])
        await socket.aclose()
        assert isinstance(await ask(endpoints.tcp[1], Where("2")), Seen)


# ---- hole punches -------------------------------------------------------------------------


async def punched(
    transport: TransportName, at: Endpoint, **options: float
) -> tuple[PunchResult, PunchResult]:
    results: dict[str, PunchResult] = {}

    async def go(name: str, peer: str) -> None:
        local = Endpoint(at.host, 0)
        plan = Plan(name=name, peer=peer, local=local, **options)
        results[name] = await punch(NETWORK, transport, at, plan=plan, jitter=JITTER)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go, "alice", "bob")
        nursery.start_soon(go, "bob", "alice")
    return results["alice"], results["bob"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("transport", BOTH)
async def test_two_hosts_without_nat_meet(transport: TransportName, host: str) -> None:
    async with rendezvous(host) as endpoints:
        alice, bob = await punched(transport, endpoints.of(transport)[0])
    assert alice.direct
    assert bob.direct
    assert (alice.remote, bob.remote) == (bob.outside, alice.outside)
    assert {alice.reason, bob.reason} <= {"answered", "dialled", "accepted"}
    assert alice.seconds < 2


@pytest.mark.parametrize("transport", BOTH)
async def test_the_same_rendezvous_serves_again(transport: TransportName) -> None:
    async with rendezvous() as endpoints:
        for _ in range(3):
            alice, bob = await punched(transport, endpoints.of(transport)[0])
            assert (alice.remote, bob.remote) == (bob.outside, alice.outside)


@pytest.mark.parametrize("transport", BOTH)
async def test_nobody_else_is_met_than_who_was_asked_for(transport: TransportName) -> None:
    async with rendezvous() as endpoints:
        plan = Plan(name="alice", peer="carol", local=ANYWHERE, wait=0.2)
        ends = endpoints.of(transport)[0]
        async with trio.open_nursery() as nursery:
            other = Plan(name="bob", peer="alice", local=ANYWHERE, wait=0.2)
            nursery.start_soon(partial(punch, NETWORK, transport, ends, plan=other, jitter=JITTER))
            result = await punch(NETWORK, transport, ends, plan=plan, jitter=JITTER)
    assert not result.direct
    assert result.reason.endswith("nobody came")


@pytest.mark.parametrize("transport", BOTH)
async def test_a_rendezvous_that_is_not_there_is_a_result(transport: TransportName) -> None:
    async with rendezvous() as endpoints:
        gone = endpoints.of(transport)[0]
    plan = Plan(name="alice", peer="bob", local=ANYWHERE, wait=0.2)
    result = await punch(NETWORK, transport, gone, plan=plan, jitter=JITTER)
    assert not result.direct
    assert result.reason.startswith("no rendezvous")


async def test_a_guest_that_leaves_is_forgotten_and_the_rendezvous_stays() -> None:
    async with rendezvous() as endpoints:
        at = endpoints.tcp[0]
        for _ in range(2):
            async with await NETWORK.dial_tcp(at) as stream:
                await Lines(stream).send(Meet("alice", "bob", 0.0))
        async with await NETWORK.dial_tcp(at) as stream:
            await stream.send_all(b"noise\n")
            assert await stream.receive_some() == b""
        plan = Plan(name="bob", peer="alice", local=ANYWHERE, wait=0.2)
        result = await punch(NETWORK, "tcp", at, plan=plan, jitter=JITTER)
        assert result.reason == "nobody came"
        alice, bob = await punched("tcp", at)
    assert alice.direct
    assert bob.direct


# ---- the command --------------------------------------------------------------------------


async def run_command(*arguments: str) -> tuple[int, dict[str, object]]:
    argv = [sys.executable, "-m", "p2pnet.testing.probing", *arguments]
    done = await trio.run_process(argv, capture_stdout=True, check=False, cwd=ROOT)
    line: dict[str, object] = json.loads(done.stdout)
    return done.returncode, line


async def test_the_command_classifies_and_punches() -> None:
    async with observing("127.0.0.1", "127.0.0.2") as endpoints, rendezvous() as meeting:
        observers = [word for each in endpoints.udp for word in ("--observer", str(each))]
        code, line = await run_command("classify", "--transport", "udp", *observers)
        assert code == 0
        assert line["event"] == "classified"
        assert line["mapping"] == line["filtering"] == "endpoint-independent"
        assert line["ports"] == "preserving"

        go = ["punch", "--transport", "tcp", "--rendezvous", str(meeting.tcp[0])]
        results = {}

        async def punch_by_command(name: str, peer: str) -> None:
            results[name] = await run_command(*go, "--name", name, "--peer", peer)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(punch_by_command, "alice", "bob")
            nursery.start_soon(punch_by_command, "bob", "alice")
        assert [(code, line["direct"]) for code, line in results.values()] == [(0, True)] * 2
        assert results["alice"][1]["remote"] == results["bob"][1]["outside"]


@pytest.mark.parametrize(
    "argv",
    [
        ["observer", "--address", "127.0.0.1", "--ports", "0", "0"],
        ["rendezvous", "--at", "127.0.0.1:0"],
    ],
)
async def test_the_command_serves_until_it_is_interrupted(argv: list[str]) -> None:
    command = [sys.executable, "-m", "p2pnet.testing.probing", *argv]
    options = {"stdout": subprocess.PIPE, "check": False, "cwd": ROOT}
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, **options))
        line = json.loads(await process.stdout.receive_some())
        assert line["event"] == "ready"
        host, _, port = line["tcp"][0].rpartition(":")
        async with await NETWORK.dial_tcp(Endpoint(host, int(port))):
            process.send_signal(signal.SIGINT)
        assert await process.wait() == 130


async def test_the_command_says_what_is_wrong() -> None:
    code, line = await run_command("rendezvous", "--at", "192.0.2.1:1")
    assert (code, line["event"]) == (1, "error")
    code, line = await run_command("classify", "--transport", "udp", "--observer", "127.0.0.1:1")
    assert code == 1
    assert "observers are needed" in str(line["message"])
