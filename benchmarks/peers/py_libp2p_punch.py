"""py-libp2p in a hole-punch trial; the contract is that of interop/README.md, as far as it goes.

It is set up as its own program for libp2p's hole-punch tests sets it up, with what helps it most:
it listens at the one address of its host, has been told by the relay where it is seen, and who is
called begins at once instead of at the next of its looks, which are 2 s apart.
"""

# ruff: noqa: ANN001 - its types are not here where this is checked.

from __future__ import annotations

import json
import logging
import os
import sys
import time
from functools import partial

import trio
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.relay.circuit_v2.config import RelayConfig, RelayLimits, RelayRole
from libp2p.relay.circuit_v2.dcutr import DCUtRProtocol
from libp2p.relay.circuit_v2.protocol import PROTOCOL_ID, CircuitV2Protocol
from libp2p.relay.circuit_v2.transport import CircuitV2Transport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr
from py_libp2p_peer import Channel, handling, make_host, split_peer
from trio_peer import ECHO, serve_echo

LIMITS = RelayLimits(
    duration=3600, data=100 * 1024 * 1024, max_circuit_conns=16, max_reservations=16
)
SAMPLE = bytes(range(256)) * 4
LOOK_SECONDS = 0.02
OBSERVED_SECONDS = 5.0
ECHO_SECONDS = 15.0
ECHO_TRIES = 4
KEPT = 60
"""Of the last lines that its DCUtR logs."""


class Notes(logging.Handler):
    """Keeps what the log says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines = [*self.lines, record.getMessage()][-KEPT:]
        print(f"{time.monotonic():.3f} {record.name}: {record.getMessage()}", file=sys.stderr)


def heard() -> Notes:
    notes = Notes()
    logger = logging.getLogger("libp2p.relay.circuit_v2.dcutr")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(notes)
    logger.propagate = False
    return notes


def connections(host, peer_id) -> list:
    found = host.get_network().connections.get(peer_id) or []
    return found if isinstance(found, list) else [found]


def is_relayed(connection) -> bool:
    """Go by the addresses that are the connection's own, not by those of the peer."""
    addresses = connection._actual_transport_addresses or ()  # noqa: SLF001
    return any("/p2p-circuit" in str(address) for address in addresses)


class Peer:
    """A host that is connected to its relay."""

    def __init__(self, host, dcutr, transport) -> None:
        self.host = host
        self.dcutr = dcutr
        self.transport = transport
        self.relay = info_from_p2p_addr(Multiaddr(os.environ["RELAY"]))
        self.doing = "connecting to the relay"
        """What an error is put down to."""

    async def reach_relay(self) -> None:
        await self.host.connect(self.relay)
        manager = self.host._observed_addr_manager  # noqa: SLF001
        with trio.move_on_after(OBSERVED_SECONDS):
            while not manager.addrs(min_observers=1):  # noqa: ASYNC110 (it tells nobody)
                await trio.sleep(LOOK_SECONDS)

    async def listen(self, nursery: trio.Nursery) -> None:
        self.doing = "reserving"
        stream = await self.host.new_stream(self.relay.peer_id, [PROTOCOL_ID])
        if not await self.transport.reserve(stream, self.relay.peer_id, nursery):
            raise OSError("the relay gave no reservation")
        own = str(self.host.get_id())
        circuit = f"{os.environ['RELAY']}/p2p-circuit/p2p/{own}"
        line = {"peer_id": own, "addresses": [], "circuit_addresses": [circuit]}
        print(json.dumps(line), flush=True)
        nursery.start_soon(self.upgrade)
        while await trio.to_thread.run_sync(partial(os.read, 0, 1024)):
            pass

    async def upgrade(self) -> None:
        """Begin as soon as somebody has called over the relay."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            for peer_id in list(self.host.get_network().connections):
                found = connections(self.host, peer_id)
                if found and all(map(is_relayed, found)):
                    await self.dcutr.initiate_hole_punch(peer_id)

    async def dial(self) -> dict:
        """Call over the relay, wait until that is direct, and see that it is of use."""
        target = os.environ["TARGET"]
        peer_id = split_peer(target.rpartition("/p2p-circuit")[2])
        self.doing = "calling over the relay"
        await self.transport.dial(Multiaddr(target))
        began = trio.current_time()
        direct = None
        with trio.move_on_after(float(os.environ["DIRECT_SECONDS"])):
            while direct is None:
                await trio.sleep(LOOK_SECONDS)
                found = connections(self.host, peer_id)
                direct = next((each for each in found if not is_relayed(each)), None)
        seconds = trio.current_time() - began
        self.doing = f"an echo over the {'relayed' if direct is None else 'direct'} connection"
        echoed = await self.echo_at_last(peer_id, direct=direct is not None)
        return {
            "remote_peer_id": str(peer_id),
            "relayed": direct is None,
            "direct_ms": None if direct is None else seconds * 1000,
            "attempts": sum(line.startswith("Starting hole punch") for line in NOTES.lines),
            "echo_bytes": len(SAMPLE),
            "echo_ok": echoed == SAMPLE,
            "error": None,
        }

    async def echo_at_last(self, peer_id, *, direct: bool) -> bytes:
        """Try more than once: a connection may be there a moment before it is of use."""
        with trio.fail_after(ECHO_SECONDS):
            for _ in range(ECHO_TRIES - 1):
                try:
                    return await self.echo(peer_id, direct=direct)
                except (StreamFailure, StreamError):
                    await trio.sleep(1)
            return await self.echo(peer_id, direct=direct)

    async def echo(self, peer_id, *, direct: bool) -> bytes:
        stream = await self.host.new_stream(peer_id, [ECHO])
        if direct and is_relayed(stream.swarm_conn):
            raise StreamFailure("the stream went over the relay")
        channel = Channel(stream)
        await channel.send_all(SAMPLE)
        await channel.send_eof()
        data = b""
        while more := await channel.receive_some():
            data += more
        return data


NOTES = heard()


async def main() -> int:
    host = make_host()
    host.set_stream_handler(ECHO, handling(serve_echo))
    line = {"peer_id": str(host.get_id()), "error": None}
    async with host.run(listen_addrs=[Multiaddr(os.environ["LISTEN"])]):
        circuits, dcutr = CircuitV2Protocol(host, LIMITS, allow_hop=False), DCUtRProtocol(host)
        async with background_trio_service(circuits), background_trio_service(dcutr):
            await circuits.event_started.wait()
            await dcutr.event_started.wait()
            roles = RelayConfig(roles=RelayRole.STOP | RelayRole.CLIENT, limits=LIMITS)
            peer = Peer(host, dcutr, CircuitV2Transport(host, circuits, roles))
            try:
                await peer.reach_relay()
                if os.environ["ROLE"] == "listen":
                    async with trio.open_nursery() as nursery:
                        await peer.listen(nursery)
                        os._exit(0)  # It takes its time to close, which nobody waits for.
                line |= await peer.dial()
            except Exception as error:  # noqa: BLE001 - the contract wants it in the line
                line["error"] = f"{peer.doing}: {error!r}"
                if os.environ["ROLE"] == "listen":
                    print(line["error"], file=sys.stderr, flush=True)
                    os._exit(1)
            print(json.dumps({**line, "notes": NOTES.lines}), flush=True)
            os._exit(0 if line["error"] is None else 1)


if __name__ == "__main__":
    trio.run(main)
