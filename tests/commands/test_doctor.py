"""What the doctor says of hosts in the simulated internet. Rules C7 to C10."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trio

from p2pnet import presets
from p2pnet.commands.doctor import Request, doctor
from p2pnet.commands.output import Output
from p2pnet.core.addresses import Multiaddr
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.links import Quality
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import IPV4_ONLY, RouterSetup, Site
from p2pnet.testing.world import World

PAGE = (Path(__file__).parents[2] / "specs" / "cli.md").read_text(encoding="utf-8")
NEAR = Quality(latency=0.02)


@dataclass
class Answer:
    code: int
    seconds: float
    report: dict[str, object]

    def rows(self, key: str) -> list[dict[str, object]]:
        rows = self.report[key]
        assert isinstance(rows, list)
        return rows

    @property
    def causes(self) -> list[object]:
        return [finding["cause"] for finding in self.rows("findings")]


async def put_relays(world: World, count: int = 3) -> list[str]:
    config = presets.relay()
    return [
        (await world.host(config, f"relay {n}", link=NEAR, families=IPV4_ONLY)).address
        for n in range(count)
    ]


def put_patient(world: World, at: Site | str) -> Machine:
    site = world.home(KINDS[at], "home", link=NEAR) if isinstance(at, str) else at
    return world.machine("patient", at=site, link=NEAR, families=IPV4_ONLY)


async def ask(
    capsys: pytest.CaptureFixture[str],
    machine: Machine,
    relays: Sequence[str] = (),
    *targets: str,
    listen: Sequence[str] = presets.ANYWHERE,
) -> Answer:
    config = replace(presets.edge(listen=listen, relays=relays), env=machine.env)
    request = Request(relays=relays, targets=targets)
    began = trio.current_time()
    code = await doctor(config, Output(as_json=True), request)
    seconds = trio.current_time() - began
    (line,) = capsys.readouterr().out.splitlines()
    return Answer(code, seconds, json.loads(line))


async def test_behind_a_nat_it_tells_who_gets_direct(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C7 C8."""
    relays = await put_relays(world)
    answer = await ask(capsys, put_patient(world, "port-restricted"), relays)
    assert answer.code == 0
    assert answer.seconds < 12
    assert answer.report["reachability"] == "private"
    assert answer.causes == ["nat"]
    (nat,) = answer.rows("nat")
    assert (nat["transport"], nat["mapping"]) == ("tcp", "endpoint-independent")
    assert nat["hairpinning"] == "no"
    assert {row["peers"]: row["way"] for row in answer.rows("reach")} == {
        "public": "direct",
        "lenient": "direct",
        "strict": "direct",
        "symmetric": "relayed" if nat["filtering"] != "unknown" else "unknown",
    }
    assert [row["held"] for row in answer.rows("relays")] == [True] * 3
    assert answer.report["ipv4"] == "private"
    assert answer.report["ipv6"] == "none"


async def test_of_a_public_host_there_is_nothing_to_say(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C7 C10."""
    relays = await put_relays(world)
    answer = await ask(capsys, put_patient(world, "open"), relays)
    assert answer.code == 0
    assert answer.report["complete"] is True
    assert answer.seconds < 8
    assert answer.report["reachability"] == "public"
    assert answer.report["remedy"] == ""
    assert {row["way"] for row in answer.rows("reach")} == {"direct"}
    public = [row for row in answer.rows("addresses") if row["verdict"] == "reachable"]
    assert public
    assert all(row["advertised"] and row["evidence"] for row in public)


async def test_a_symmetric_nat_is_named_and_the_remedy_is_that_of_the_first_finding(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C8."""
    relays = await put_relays(world)
    answer = await ask(capsys, put_patient(world, "symmetric"), relays)
    first = answer.rows("findings")[0]
    assert first["cause"] == "symmetric_nat"
    assert answer.report["remedy"] == first["remedy"]
    assert {row["peers"]: row["way"] for row in answer.rows("reach")}["strict"] == "relayed"


async def test_without_anybody_it_ends_early_and_says_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C7 C10."""
    answer = await ask(capsys, put_patient(world, "port-restricted"))
    assert answer.code == 1
    assert answer.seconds < 8
    assert answer.causes == ["no_peers"]


async def test_a_router_that_maps_is_found_and_heard_over_udp(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C8."""
    relays = await put_relays(world)
    nat = KINDS["port-restricted"].nats[0]
    router = world.router("home", nat, setup=RouterSetup(port_mapping=("nat-pmp",)))
    answer = await ask(capsys, put_patient(world, router), relays)
    assert answer.code == 0
    assert answer.report["udp"] == {"bound": True, "answered": True}
    assert answer.report["gateways"] == [router.address]
    spoken = {row["protocol"]: row["found"] for row in answer.rows("routers")}
    assert spoken["nat-pmp"] is True
    assert {row["protocol"] for row in answer.rows("mappings")} == {"nat-pmp"}
    assert answer.report["reachability"] == "public"


async def test_of_a_relay_and_a_peer_it_says_why_they_do_not_work(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C9 C10."""
    relays = await put_relays(world, 2)
    peer = await world.host(presets.minimal(listen=presets.RELAY_PORTS), "peer", link=NEAR)
    gone, here = relays[0], peer.address
    await world.machines["relay 0"].stop()
    missing = here.replace("/tcp/4001/", "/tcp/4002/")
    machine = put_patient(world, "port-restricted")
    answer = await ask(capsys, machine, [gone], missing)
    assert answer.code == 1
    assert answer.causes[0] == "relay_unreachable"
    (relay,) = answer.rows("relays")
    assert relay["held"] is False
    (told,) = answer.rows("peers")
    assert told["state"] == "not connected"
    assert [finding["cause"] for finding in rows_of(told, "findings")] == ["refused"]
    assert told["story"]
    good = await ask(capsys, machine, [relays[1]], here)
    assert good.code == 0
    assert str(good.rows("peers")[0]["state"]).startswith("connected directly")


def rows_of(row: dict[str, object], key: str) -> list[dict[str, object]]:
    rows = row[key]
    assert isinstance(rows, list)
    return rows


@pytest.mark.parametrize("kind", list(KINDS))
async def test_the_time_is_kept_behind_whatever_nat_and_words_end_with_what_to_do(
    world: World, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """C7: ten seconds, and what saying goodbye takes."""
    relays = await put_relays(world)
    machine = put_patient(world, kind)
    config = replace(presets.edge(relays=relays), env=machine.env)
    began = trio.current_time()
    code = await doctor(config, Output(), Request(relays=relays))
    assert trio.current_time() - began < 12.5
    assert code == 0
    told = capsys.readouterr().out
    assert "interfaces" in told
    assert "holds a reservation" in told
    assert ("What would help most: " in told) != ("Nothing needs to be changed." in told)


async def test_while_it_watches_it_tells_what_changes_and_nothing_twice(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C9."""
    relays = await put_relays(world)
    machine = put_patient(world, "port-restricted")
    config = replace(presets.edge(relays=relays), env=machine.env)
    request = Request(relays=relays, watch=True)

    def reports() -> list[dict[str, object]]:
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    async with trio.open_nursery() as nursery:
        nursery.start_soon(doctor, config, Output(as_json=True), request)
        await trio.sleep(60)
        first = reports()
        assert [held(report) for report in first][-1] == 3
        await trio.sleep(600)
        assert reports() == []
        await world.machines["relay 0"].stop()
        await trio.sleep(10)
        assert [held(report) for report in reports()][-1] == 2
        nursery.cancel_scope.cancel()


def held(report: dict[str, object]) -> int:
    return sum(bool(relay["held"]) for relay in rows_of(report, "relays"))


async def test_every_key_of_a_report_is_on_the_page(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """C8: what is printed is a contract."""
    relays = await put_relays(world)
    target = str(Multiaddr("/ip4/11.200.0.1/tcp/1")) + relays[0][relays[0].rindex("/p2p/") :]
    nat = KINDS["symmetric"].nats[0]
    router = world.router("home", nat, setup=RouterSetup(port_mapping=("upnp", "pcp")))
    answer = await ask(capsys, put_patient(world, router), relays, target)
    documented = set(re.findall(r"`(\w+)`", PAGE[PAGE.index("## The report") :]))
    assert set(keys(answer.report)) - {"event"} <= documented


def keys(value: object) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for inner in value.values() for key in keys(inner))]
    if isinstance(value, list):
        return [key for inner in value for key in keys(inner)]
    return []
