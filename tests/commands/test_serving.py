"""What ``p2pnet node`` tells of what happens before it runs, and how it ends. Rules C1 and C3."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio

from p2pnet import presets
from p2pnet.commands.output import Output
from p2pnet.commands.serving import node
from p2pnet.interfaces import Kit, Service, ServiceHost
from p2pnet.testing.links import Quality
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World


class Slow:
    """A part, and a service, that takes its time to begin."""

    def build(self, kit: Kit) -> Service:
        return self

    async def run(self, host: ServiceHost, *, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep(5.0)
        task_status.started()


async def test_a_reservation_is_told_though_other_services_have_not_begun(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a busy machine any service may be that slow, and a relay near by is asked at once."""
    relay = await world.host(presets.relay(), "relay", families=IPV4_ONLY)
    home = world.home("port-restricted", "home", link=Quality(latency=0.02))
    me = world.machine("me", at=home, families=IPV4_ONLY)
    edge = presets.edge(relays=[relay.address])
    config = replace(edge, env=me.env, services=[*edge.services, Slow()])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: node(config, Output(), with_echo=False))
        await trio.sleep(10.0)
        nursery.cancel_scope.cancel()
    assert told(capsys.readouterr().out.splitlines()) == [relay.address]


async def test_what_stays_relayed_is_told_with_its_cause(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The node is the one that is called, and so begins the hole punches."""
    relays = [
        (await world.host(presets.relay(), f"relay {n}", families=IPV4_ONLY)).address
        for n in range(2)
    ]
    edge = presets.edge(relays=relays)
    link = Quality(latency=0.02)
    homes = [world.home("symmetric", name, link=link) for name in ("home", "other home")]
    me = world.machine("me", at=homes[0], families=IPV4_ONLY)
    caller = await world.host(edge, "caller", at=homes[1], families=IPV4_ONLY)
    async with trio.open_nursery() as nursery:
        config = replace(edge, env=me.env)
        nursery.start_soon(lambda: node(config, Output(as_json=True), with_echo=False))
        await trio.sleep(15.0)
        events = events_in(capsys)
        address = next(each["address"] for each in events if each["event"] == "reservation")
        await caller.host.connect(str(address))
        await trio.sleep(60.0)
        nursery.cancel_scope.cancel()
    (not_direct,) = [each for each in events_in(capsys) if each["event"] == "not_direct"]
    (finding,) = not_direct["findings"]
    assert (finding["cause"], not_direct["remedy"]) == ("own_symmetric", finding["remedy"])


def events_in(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def told(lines: Sequence[str]) -> list[str]:
    """Return the relays at which there are reservations."""
    found = [line.removeprefix("reserved ") for line in lines if line.startswith("reserved ")]
    return [line.partition("/p2p-circuit")[0] for line in found]


LINGERING = """
from dataclasses import replace
import trio
from p2pnet import presets
from p2pnet.commands.output import Output
from p2pnet.commands.serving import node

class Lingering:
    def build(self, kit):
        return self

    async def run(self, host, *, task_status):
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            print("goodbye", flush=True)
            with trio.CancelScope(shield=True):
                await trio.lowlevel.wait_readable(0)
            print("gone", flush=True)

config = presets.minimal(listen=["/ip4/127.0.0.1/tcp/0"])
config = replace(config, services=[Lingering()])
trio.run(lambda: node(config, Output(), with_echo=False))
"""
"""Says goodbye until its input ends."""


@pytest.mark.sockets
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_goodbye(number: signal.Signals) -> None:
    """C3: At once: the input ends behind it, and who heeds the signal only later comes to that."""
    pipe = subprocess.PIPE
    argv = [sys.executable, "-c", LINGERING]
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline().startswith(b"listening")
            program.send_signal(signal.SIGINT)
            assert b"goodbye\n" in program.stdout
            program.send_signal(number)
            program.stdin.close()
            assert program.stdout.read() == b""
            assert program.wait() == -number
        finally:
            program.kill()
