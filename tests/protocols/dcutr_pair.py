"""Two hosts and a relayed connection between them, for the tests of DCUtR."""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from p2pnet.core.addresses import Multiaddr, parse
from p2pnet.events import (
    HolePunched,
    IdentifyFailed,
    PeerIdentified,
    PunchAttemptFailed,
    PunchGivenUp,
)
from p2pnet.interfaces import Connection, Role, Stream
from p2pnet.protocols.dcutr import DCUtR
from p2pnet.protocols.dcutr.messages import PROTOCOL_ID, Connect, Sync
from p2pnet.protocols.dcutr.puncher import channel_on
from tests.protocols.memory_world import MemoryConnection, MemoryHost, MemoryWorld, drop

RELAY = (
    "/ip4/11.9.9.9/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit"
)
ALICE, BOB = "/ip4/11.0.0.1/tcp/1", "/ip4/11.0.0.2/tcp/2"
ALICE_QUIC, BOB_QUIC = "/ip4/11.0.0.1/udp/1/quic-v1", "/ip4/11.0.0.2/udp/2/quic-v1"
LATENCY = 0.1


@dataclass(eq=False)
class Pair:
    """Alice called Bob over a relay, so Bob initiates. Nobody's SYN gets through at first."""

    world: MemoryWorld
    age: float = 60.0
    """Seconds since the relayed connection opened: with so many there is a SYNC (D26)."""
    alice: MemoryHost = field(init=False)
    bob: MemoryHost = field(init=False)

    def __post_init__(self) -> None:
        self.alice = self.world.host(1, ALICE)
        self.bob = self.world.host(2, BOB)
        for host in (self.alice, self.bob):
            host.punchable = (host.place,)
            host.on_dial = drop

    async def start(self, config: DCUtR | None = None) -> None:
        """Start the service on both sides."""
        for host in (self.alice, self.bob):
            await host.start((config or DCUtR()).build(host.kit))

    def listen_over_quic(self) -> None:
        """Let both be seen over QUIC, too."""
        self.alice.punchable = (parse(ALICE), parse(ALICE_QUIC))
        self.bob.punchable = (parse(BOB), parse(BOB_QUIC))

    def call(self) -> MemoryConnection:
        """Let Alice call Bob; return Alice's end. Bob knows at once who she is."""
        relayed = self.arrive()
        self.identify(relayed.other_end)
        return relayed

    def arrive(self) -> MemoryConnection:
        """Let Alice call Bob; return Alice's end. She has not identified herself yet."""
        relayed = self.world.connect(self.alice, self.bob, relay=RELAY, latency=LATENCY)
        for end in (relayed, relayed.other_end):
            end.opened_at -= self.age
        return relayed

    def identify(self, connection: MemoryConnection, *protocols: str, pushed: bool = False) -> None:
        """Let the host of this end learn which protocols the other has."""
        host, spoken = connection.owner, protocols or (PROTOCOL_ID,)
        host.peers.set_protocols(connection.peer_id, spoken)
        host.publish(PeerIdentified(connection.ref, "", "", spoken, (), None, pushed))

    def fail_to_identify(self, connection: MemoryConnection) -> None:
        connection.owner.publish(IdentifyFailed(connection.ref, "timed out"))

    def direct(self) -> MemoryConnection:
        """Connect Alice to Bob; return Alice's end."""
        return self.world.connect(self.alice, self.bob)

    def let_through(self, *, after: float = 0.0) -> None:
        """From now on, Alice's SYN reaches Bob."""

        async def dial(address: Multiaddr, role: Role) -> Connection:
            await trio.sleep(after)
            return self.direct()

        self.alice.on_dial = dial

    async def converse(
        self, relayed: MemoryConnection, *offered: str, dials: bool | None = None
    ) -> Stream:
        """Begin with Alice as Bob would, up to SYNC, whatever Bob's service does."""
        return await self.converse_on(relayed.other_end, *offered, dials=dials)

    async def converse_on(
        self, called: MemoryConnection, *offered: str, dials: bool | None = None
    ) -> Stream:
        """Do so on the end of the host that was called, whoever that is."""
        stream = await called.open_stream(PROTOCOL_ID)
        channel = channel_on(stream)
        addresses = tuple(parse(text) for text in offered or (BOB,))
        await channel.send(Connect(addresses, dials=dials))
        assert isinstance(await channel.receive(), Connect)
        await channel.send(Sync())
        return stream

    # ---- what happened -------------------------------------------------------------------

    def punched(self, host: MemoryHost) -> list[int]:
        return [event.attempt for event in host.of_kind(HolePunched)]

    def failures(self, host: MemoryHost) -> list[tuple[int, str]]:
        return [(event.attempt, event.reason) for event in host.of_kind(PunchAttemptFailed)]

    def given_up(self, host: MemoryHost) -> list[tuple[str, ...]]:
        return [event.reasons for event in host.of_kind(PunchGivenUp)]

    def roles(self, host: MemoryHost) -> list[Role]:
        return [dial.role for dial in host.dials]

    def hide(self, who: str) -> None:
        """Let nobody tell the TCP ports of "alice", of "bob", or of "both"."""
        self.alice.moving["tcp"] = who in ("alice", "both")
        self.bob.moving["tcp"] = who in ("bob", "both")

    async def dialled_with(self, hidden: str) -> tuple[list[float], list[float]]:
        """Start both, one or both hidden; return when Alice and Bob dialled after her call."""
        self.hide(hidden)
        await self.start(DCUtR(predicted_ports=0))
        began = trio.current_time()
        self.call()
        await trio.sleep(1)
        return self.dialled_at(self.alice, began), self.dialled_at(self.bob, began)

    def dialled_at(self, host: MemoryHost, began: float) -> list[float]:
        return [round(dial.at - began, 3) for dial in host.dials]
