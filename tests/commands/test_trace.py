"""The way to a peer, told as it happens, in the simulated internet. Rules C13 and C14."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import trio

from p2pnet import open_host, presets
from p2pnet.commands import asking
from p2pnet.commands.output import Output
from p2pnet.commands.parser import spelled_out
from p2pnet.commands.running import birthday, calling
from p2pnet.commands.telling import SECOND_RELAY
from p2pnet.commands.trace import trace
from p2pnet.connectivity.causes import Cause
from p2pnet.core.addresses import is_relayed
from p2pnet.protocols.relay import RelayServer
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.matrix import relays_for, speaking
from p2pnet.testing.sites import IPV4_ONLY
from p2pnet.testing.world import World

NEAR = Quality(latency=0.02)


@dataclass
class Story:
    code: int
    events: list[dict[str, object]]

    @property
    def names(self) -> list[object]:
        return [event["event"] for event in self.events]

    def all(self, name: str) -> list[dict[str, object]]:
        return [event for event in self.events if event["event"] == name]

    def one(self, name: str) -> dict[str, object]:
        (event,) = self.all(name)
        return event


@dataclass
class Scene:
    """Relays, a peer at one kind of home that has a reservation, and a machine at another."""

    relays: list[str]
    peer: Machine
    here: Machine

    seconds: float = 0.0
    """How long the last command took."""

    async def ask(self, capsys: pytest.CaptureFixture[str], command: str, target: str) -> Story:
        config = replace(calling(self.relays), env=self.here.env)
        output = Output(as_json=True)
        async with open_host(config) as host:
            began = trio.current_time()
            if command == "trace":
                code = await trace(host, target, output, relays=self.relays, seconds=60)
            else:
                code = await asking.ping(
                    host, target, output, count=1, direct_seconds=60, relays=self.relays
                )
            self.seconds = trio.current_time() - began
        return Story(code, [json.loads(line) for line in capsys.readouterr().out.splitlines()])

    @property
    def peer_id(self) -> str:
        return str(self.peer.host.peer_id)


async def build(
    world: World, here: str, there: str, *, relays: int = 2, limits: RelayServer | None = None
) -> Scene:
    recipe = presets.relay(limits=limits)
    at = [
        (await world.host(recipe, f"relay {n}", link=NEAR, families=IPV4_ONLY)).address
        for n in range(relays)
    ]
    peer = await world.host(
        presets.edge(relays=at[:1]),
        "peer",
        at=world.home(there, "there", link=NEAR),
        link=NEAR,
        families=IPV4_ONLY,
    )
    await peer.host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
    home = world.home(here, "here", link=NEAR)
    return Scene(at, peer, world.machine("me", at=home, link=NEAR, families=IPV4_ONLY))


def in_order(names: Sequence[object], wanted: Sequence[str]) -> bool:
    rest = iter(names)
    return all(name in rest for name in wanted)


async def test_a_public_peer_is_direct_at_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C13 C14."""
    scene = await build(world, "port-restricted", "open", relays=1)
    story = await scene.ask(capsys, "trace", scene.peer.address)
    assert story.code == 0
    assert not story.all("punching")
    plan = next(event for event in story.all("plan") if event["peer"] == scene.peer_id)["plan"]
    assert isinstance(plan, list)
    assert plan[0]["after"] == 0
    opened = [e for e in story.all("connection") if e["peer"] == scene.peer_id]
    assert [(e["relayed"], e["address"]) for e in opened] == [(False, plan[0]["address"])]
    verdict = story.one("trace")
    assert story.names[-1] == "trace"
    assert (verdict["direct"], verdict["findings"], verdict["remedy"]) == (True, [], "")
    assert str(verdict["state"]).startswith("connected directly")


async def test_from_relayed_to_direct_each_step_is_told_when_it_happens(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C13 C14."""
    scene = await build(world, "port-restricted", "port-restricted", relays=1)
    story = await scene.ask(capsys, "trace", scene.peer_id)
    assert story.code == 0
    steps = ("plan", "connection", "connection", "punching", "punched", "trace")
    assert in_order(story.names, steps), story.names
    assert in_order(story.names, ("candidates", "punching"))
    assert in_order(story.names, ("connection", "identified", "punched"))  # Beside it (D2, D30).
    times = [float(str(event["at"])) for event in story.events if "at" in event]
    assert times == sorted(times)
    assert times[-1] > times[0]
    opened = [e for e in story.all("connection") if e["peer"] == scene.peer_id]
    assert [e["relayed"] for e in opened] == [True, False]
    punching, punched = story.one("punching"), story.one("punched")
    assert punching["attempt"] == punched["attempt"] == 1
    assert punched["address"] in list(map(str, rows(punching["addresses"])))
    assert rows(story.all("candidates")[-1]["own"])
    assert story.one("trace")["direct"] is True


def rows(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


@pytest.mark.parametrize("command", ["trace", "ping"])
async def test_what_cannot_be_punched_ends_relayed_with_the_cause_and_the_advice(
    world: World, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """C13 C14: as soon as all punches have failed, and not when the time is over."""
    scene = await build(world, "symmetric", "symmetric")
    story = await scene.ask(capsys, command, scene.peer_id)
    assert in_order(story.names, ("punching", "punch_failed", "given_up")), story.names
    failed = story.all("punch_failed")
    assert [event["attempt"] for event in failed] == [1, 2, 3]
    assert all("no answer" in str(event["reason"]) for event in failed)
    assert scene.seconds < 45
    remedy = Cause.OWN_SYMMETRIC.remedy
    if command == "ping":
        told = story.one("not_direct")
        assert told["remedy"] == remedy
        assert len(rows(told["reasons"])) == 3
        assert (story.code, story.one("ping")["relayed"]) == (0, True)
        return
    verdict = story.one("trace")
    assert story.code == 1
    assert (verdict["connected"], verdict["direct"], verdict["remedy"]) == (True, False, remedy)
    (finding,) = rows(verdict["findings"])
    assert isinstance(finding, dict)
    assert finding["cause"] == "own_symmetric"
    (nat,) = rows(verdict["nat"])
    assert isinstance(nat, dict)
    assert str(nat["mapping"]).endswith("dependent")


async def test_a_circuit_that_will_be_cut_is_told(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """R39 C14."""
    limits = RelayServer(circuit_seconds=5)
    scene = await build(world, "symmetric", "symmetric", limits=limits)
    near = (await scene.ask(capsys, "trace", scene.peer_id)).all("near_limit")[0]
    assert (near["peer"], near["limit"], near["maximum"]) == (scene.peer_id, "seconds", 5)
    assert str(near["relay"]) in scene.relays[0]


async def test_with_birthday_punching_on_both_sides_a_random_port_is_found(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C18."""
    services = birthday(Namespace(birthday=True))
    relays = await relays_for(world, "quic")
    there = speaking("quic", presets.edge(relays=relays, services=services))
    peer = await world.host(
        there, "peer", at=world.home("port-restricted", "there", link=NEAR), families=IPV4_ONLY
    )
    await peer.host.addresses.wait_for(lambda own: any(map(is_relayed, own)))
    here = world.machine("me", at=world.home("symmetric", "here", link=NEAR), families=IPV4_ONLY)
    config = speaking("quic", calling(relays, services=services))
    async with open_host(replace(config, env=here.env)) as host:
        target = str(peer.host.peer_id)
        assert await trace(host, target, Output(), relays=relays, seconds=60) == 0
    assert "hole punch 2 worked" in capsys.readouterr().out


@pytest.mark.parametrize(("command", "event"), [("trace", "trace"), ("ping", "not_direct")])
async def test_with_one_relay_it_says_that_another_would_tell_more(
    world: World, capsys: pytest.CaptureFixture[str], command: str, event: str
) -> None:
    """C13 C14."""
    scene = await build(world, "symmetric", "symmetric", relays=1)
    told = (await scene.ask(capsys, command, scene.peer_id)).one(event)
    assert (told["hint"], told["remedy"]) == (SECOND_RELAY, Cause.PUNCH_UNANSWERED.remedy)
    findings = told["findings"]
    assert isinstance(findings, list)
    assert [each["remedy"] for each in findings][:1] == [told["remedy"]]


async def test_a_peer_that_is_not_there_is_told_with_every_address_and_the_cause(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C13 C14."""
    scene = await build(world, "port-restricted", "open", relays=1)
    missing = f"/ip4/11.200.0.1/tcp/1/p2p/{scene.peer_id}"
    await scene.peer.stop()
    await world.machines["relay 0"].stop()
    story = await scene.ask(capsys, "trace", missing)
    assert story.code == 1
    failed = {e["address"]: e["cause"] for e in story.all("address_failed")}
    assert failed["/ip4/11.200.0.1/tcp/1"] == "no_answer"
    assert failed["/ip4/11.1.0.1/tcp/4001"] == "refused"
    assert set(failed.values()) == {"no_answer", "refused", "relay_unreachable"}
    verdict = story.one("trace")
    assert (verdict["connected"], verdict["direct"]) == (False, False)
    assert verdict["remedy"]


async def test_a_peer_without_dcutr_is_not_waited_for(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C13."""
    scene = await build(world, "port-restricted", "port-restricted", relays=1)
    scene.peer.host.unhandle("/libp2p/dcutr")
    story = await scene.ask(capsys, "trace", scene.peer_id)
    verdict = story.one("trace")
    assert float(str(verdict["seconds"])) < 5
    assert verdict["remedy"] == Cause.NO_DCUTR.remedy
    assert story.one("identified")["dcutr"] is False


async def test_in_words_the_last_line_is_what_would_change_it(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C14."""
    scene = await build(world, "symmetric", "symmetric")
    config = replace(calling(scene.relays), env=scene.here.env)
    async with open_host(config) as host:
        await trace(host, scene.peer_id, Output(), relays=scene.relays, seconds=60)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"what would change it: {Cause.OWN_SYMMETRIC.remedy}"
    assert any("hole punch 2 failed" in line for line in lines)


def test_a_bare_direct_takes_nothing_of_what_follows() -> None:
    """C13."""
    assert spelled_out(["ping", "--direct", "PEER"]) == ["ping", "--direct=60", "PEER"]
    assert spelled_out(["ping", "PEER", "--direct"]) == ["ping", "PEER", "--direct=60"]
    assert spelled_out(["ping", "--direct", "5", "PEER"]) == ["ping", "--direct", "5", "PEER"]
    assert spelled_out(["ping", "--direct=5", "PEER"]) == ["ping", "--direct=5", "PEER"]
