"""Port mapping in a simulated home: what is asked for by hand, byte by byte, works."""

from __future__ import annotations

import struct

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.kinds import KINDS
from p2pnet.testing.machines import Machine
from p2pnet.testing.sites import Router, RouterSetup
from p2pnet.testing.world import World

NAT = KINDS["symmetric"].nats[0]
SETUP = RouterSetup(port_mapping=("upnp", "nat-pmp", "pcp"))
ANYWHERE = Endpoint("0.0.0.0", 0)
NAT_PMP_MAP_TCP_4001 = struct.pack("!BBHHHI", 0, 2, 0, 4001, 4001, 3600)
"""Version 0, opcode 2, reserved, inside port, wished outside port, seconds (RFC 6886, 3.3)."""


def home(world: World) -> tuple[Router, Machine]:
    router = world.router("home", NAT, setup=SETUP)
    return router, world.machine("alice", at=router)


async def ask(machine: Machine, remote: Endpoint, question: bytes) -> tuple[bytes, Endpoint]:
    sock = await machine.env.network.bind_udp(ANYWHERE)
    try:
        await sock.send(question, remote)
        return await sock.receive()
    finally:
        with trio.CancelScope(shield=True):
            await sock.aclose()


async def test_a_port_that_was_asked_for_can_be_dialled_from_outside(world: World) -> None:
    router, alice = home(world)
    answer, source = await ask(alice, Endpoint(router.address, 5351), NAT_PMP_MAP_TCP_4001)
    version, opcode, result, _, inside, outside, seconds = struct.unpack("!BBHIHHI", answer)
    assert (version, opcode, result, inside, outside, seconds) == (0, 130, 0, 4001, 4001, 3600)
    assert source == Endpoint(router.address, 5351)
    listener = await alice.env.network.listen_tcp(Endpoint("0.0.0.0", 4001))
    stranger = world.machine("stranger")
    near = await stranger.env.network.dial_tcp(Endpoint(router.outside_addresses[0], 4001))
    far = await listener.accept()
    assert far.remote == near.local
    for closing in (near, far, listener):
        await closing.aclose()


async def test_a_reboot_loses_the_mapping_and_is_announced(world: World) -> None:
    router, alice = home(world)
    await ask(alice, Endpoint(router.address, 5351), NAT_PMP_MAP_TCP_4001)
    hearing = await alice.env.network.bind_udp(Endpoint("224.0.0.1", 5350))
    router.reboot()
    announcement, source = await hearing.receive()
    assert announcement[:4] == b"\x00\x80\x00\x00"
    assert source.host == router.address
    stranger = world.machine("stranger")
    with trio.move_on_after(10) as patience:
        await stranger.env.network.dial_tcp(Endpoint(router.outside_addresses[0], 4001))
    assert patience.cancelled_caught
    await hearing.aclose()


async def test_upnp_is_found_by_multicast_and_describes_itself(world: World) -> None:
    router, alice = home(world)
    search = (
        'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
        "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
    )
    answer, _ = await ask(alice, Endpoint("239.255.255.250", 1900), search.encode())
    headers = dict(line.split(": ", 1) for line in answer.decode().splitlines()[1:] if line)
    location = {name.lower(): value for name, value in headers.items()}["location"]
    host, _, rest = location.removeprefix("http://").partition(":")
    port, _, path = rest.partition("/")
    assert host == router.address
    async with await alice.env.network.dial_tcp(Endpoint(host, int(port))) as stream:
        await stream.send_all(f"GET /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        page = b"".join([chunk async for chunk in stream])
    assert page.startswith(b"HTTP/1.1 200 OK")
    assert b"WANIPConnection" in page


async def test_nobody_outside_can_ask(world: World) -> None:
    router, _ = home(world)
    stranger = world.machine("stranger")
    with trio.move_on_after(5) as patience:
        await ask(stranger, Endpoint(router.outside_addresses[0], 5351), NAT_PMP_MAP_TCP_4001)
    assert patience.cancelled_caught


@pytest.mark.parametrize("protocol", ["nat-pmp", "pcp"])
async def test_a_protocol_that_is_not_spoken_gets_no_answer_to_its_liking(
    world: World, protocol: str
) -> None:
    setup = RouterSetup(port_mapping=("pcp" if protocol == "nat-pmp" else "nat-pmp",))
    router = world.router("home", NAT, setup=setup)
    alice = world.machine(at=router)
    version = 0 if protocol == "nat-pmp" else 2
    question = bytes([version]) + bytes(59)
    answer, _ = await ask(alice, Endpoint(router.address, 5351), question)
    assert answer[0] != version
