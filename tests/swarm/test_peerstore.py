"""Rule S15."""

from __future__ import annotations

from dataclasses import dataclass

from p2pnet.core.addresses import parse
from p2pnet.core.peer_id import PeerId
from p2pnet.interfaces import PeerBook
from p2pnet.swarm.config import SwarmConfig
from p2pnet.swarm.peerstore import Peerstore

PEERS = [PeerId(b"\x12\x20" + bytes([n]) * 32) for n in range(8)]
PEER = PEERS[0]
ADDRESSES = [parse(f"/ip4/1.2.3.4/tcp/{n}") for n in range(8)]


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def store(clock: Clock | None = None) -> Peerstore:
    config = SwarmConfig(max_peers=3, max_addresses_per_peer=3, max_protocols_per_peer=2)
    return Peerstore(config, clock or Clock())


def test_a_peerstore_is_a_peer_book() -> None:
    book: PeerBook = store()
    assert book.addresses(PEER) == ()


def test_s15_addresses_expire_one_by_one() -> None:
    clock = Clock()
    peers = store(clock)
    peers.add_addresses(PEER, ADDRESSES[:1], seconds=10)
    peers.add_addresses(PEER, ADDRESSES[1:2], seconds=20)
    clock.now += 9.9
    assert peers.addresses(PEER) == tuple(ADDRESSES[:2])
    clock.now += 0.1
    assert peers.addresses(PEER) == (ADDRESSES[1],)
    clock.now += 10
    assert peers.addresses(PEER) == ()


def test_s15_hearing_of_an_address_again_never_shortens_its_life() -> None:
    clock = Clock()
    peers = store(clock)
    peers.add_addresses(PEER, ADDRESSES[:1], seconds=100)
    peers.add_addresses(PEER, ADDRESSES[:1], seconds=1)
    clock.now += 50
    assert peers.addresses(PEER) == (ADDRESSES[0],)
    peers.add_addresses(PEER, ADDRESSES[:1], seconds=100)
    clock.now += 99
    assert peers.addresses(PEER) == (ADDRESSES[0],)


def test_s15_the_addresses_heard_of_longest_ago_give_way() -> None:
    peers = store()
    peers.add_addresses(PEER, ADDRESSES[:3], seconds=10)
    peers.add_addresses(PEER, [ADDRESSES[0], ADDRESSES[3]], seconds=10)
    assert peers.addresses(PEER) == (ADDRESSES[2], ADDRESSES[0], ADDRESSES[3])


def test_s15_the_peer_heard_of_longest_ago_is_forgotten() -> None:
    peers = store()
    for peer in PEERS[:3]:
        peers.add_addresses(peer, ADDRESSES[:1], seconds=10)
    peers.set_protocols(PEERS[0], ["/a"])
    peers.add_addresses(PEERS[3], ADDRESSES[:1], seconds=10)
    assert len(peers) == 3
    assert peers.addresses(PEERS[1]) == ()
    assert peers.addresses(PEERS[0]) == (ADDRESSES[0],)


def test_s15_to_ask_for_a_peer_does_not_remember_it() -> None:
    peers = store()
    assert peers.addresses(PEER) == ()
    assert peers.protocols(PEER) is None
    assert len(peers) == 0


def test_s15_protocols_are_unknown_until_the_peer_says() -> None:
    peers = store()
    peers.add_addresses(PEER, ADDRESSES[:1], seconds=10)
    assert peers.protocols(PEER) is None
    peers.set_protocols(PEER, [])
    assert peers.protocols(PEER) == frozenset()
    peers.set_protocols(PEER, ["/a", "/b", "/c"])
    assert peers.protocols(PEER) == frozenset(["/a", "/b"])


def test_s15_a_signed_record_must_be_newer_than_the_last() -> None:
    peers = store()
    assert peers.accept_sequence(PEER, 0)
    assert not peers.accept_sequence(PEER, 0)
    assert peers.accept_sequence(PEER, 7)
    assert not peers.accept_sequence(PEER, 6)
    assert peers.accept_sequence(PEERS[1], 6)
