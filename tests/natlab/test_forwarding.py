"""What a router that is a program does with packets, without sockets."""

from __future__ import annotations

import errno
from random import Random

import pytest

from interop.natlab.fabric import layers, make_nats, seconds
from interop.natlab.forwarding import Forwarder
from interop.natlab.headers import as_on_the_wire, build, read
from interop.natlab.slow_line import Quality, SlowLine
from p2pnet.core.addresses import Endpoint
from p2pnet.demo.private_world import LaboratoryError
from p2pnet.testing.kinds import ALL_KINDS
from p2pnet.testing.nat import Hop, Side
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment

ALICE = Endpoint("192.168.1.2", 5000)
SERVER, OTHER = Endpoint("11.0.0.1", 443), Endpoint("11.0.0.2", 443)
OUTSIDE = "11.0.1.1"
ROUTER = "192.168.1.1"


class Routed:
    """A forwarder, and what it sent."""

    def __init__(self, kind: str, delay: float = 0.0, max_mappings: int | None = None) -> None:
        self.sent: list[tuple[Side, Packet]] = []
        self.fails_with: int | None = None
        self.nats = make_nats(layers(kind, None, max_mappings), OUTSIDE, Random(1))
        self.forwarder = Forwarder(
            self.nats,
            outgoing=SlowLine(Quality(delay), Random(2)),
            incoming=SlowLine(Quality(delay), Random(3)),
            own_address=ROUTER,
            send=self._send,
        )

    def _send(self, side: Side, raw: bytes) -> None:
        if self.fails_with is not None:
            raise OSError(self.fails_with, "as told")
        assert as_on_the_wire(raw) == [raw]
        self.sent.append((side, read(raw)))

    def out(self, packet: Packet, now: float = 0.0) -> None:
        self.forwarder.from_inside(build(packet), now)
        self.forwarder.release(now)

    def in_(self, packet: Packet, now: float = 0.0) -> None:
        self.forwarder.from_outside(build(packet), now)
        self.forwarder.release(now)

    def taken(self) -> list[tuple[Side, Packet]]:
        sent, self.sent = self.sent, []
        return sent


def datagram(source: Endpoint, destination: Endpoint) -> Packet:
    return Packet(source, destination, Datagram(b"data"))


def syn(source: Endpoint, destination: Endpoint) -> Packet:
    return Packet(source, destination, Segment(Flags.SYN, 7))


def test_a_datagram_goes_out_and_its_answer_comes_in() -> None:
    routed = Routed("port-restricted")
    outside = Endpoint(OUTSIDE, 5000)
    routed.out(datagram(ALICE, SERVER))
    assert routed.taken() == [(Side.OUTSIDE, datagram(outside, SERVER))]
    routed.in_(datagram(SERVER, outside))
    assert routed.taken() == [(Side.INSIDE, datagram(SERVER, ALICE))]


def test_the_line_delays_outgoing_packets_after_and_incoming_ones_before_the_nat() -> None:
    routed = Routed("port-restricted", delay=1.0)
    outside = Endpoint(OUTSIDE, 5000)
    # It would be filtered now; when the line lets go of it, the NAT is open.
    routed.in_(datagram(SERVER, outside), now=0.0)
    routed.out(datagram(ALICE, SERVER), now=0.5)
    assert routed.taken() == []
    assert routed.forwarder.release(0.75) == 1.0
    assert routed.forwarder.release(1.0) == 1.5
    assert routed.taken() == [(Side.INSIDE, datagram(SERVER, ALICE))]
    assert routed.forwarder.release(1.5) == float("inf")
    assert routed.taken() == [(Side.OUTSIDE, datagram(outside, SERVER))]


def test_what_is_for_the_router_itself_is_left_to_the_kernel() -> None:
    routed = Routed("full-cone")
    routed.out(datagram(ALICE, Endpoint(ROUTER, 5351)))
    assert routed.taken() == []
    assert routed.nats.count_mappings(0.0) == 0
    assert not routed.forwarder.counts


def test_a_reset_of_the_nat_is_a_packet_of_its_own() -> None:
    routed = Routed("port-restricted-reset")
    routed.in_(syn(SERVER, Endpoint(OUTSIDE, 5000)))
    ((side, answer),) = routed.taken()
    assert side is Side.OUTSIDE
    assert (answer.source, answer.destination) == (Endpoint(OUTSIDE, 5000), SERVER)
    assert answer.payload == Segment(Flags.RST | Flags.ACK, 0, 8)
    assert routed.forwarder.counts["answered"] == 1


def test_what_the_nat_drops_is_counted_by_its_reason() -> None:
    routed = Routed("port-restricted", max_mappings=1)
    routed.in_(datagram(SERVER, Endpoint(OUTSIDE, 5000)))
    routed.out(datagram(ALICE, SERVER))
    routed.in_(datagram(OTHER, Endpoint(OUTSIDE, 5000)))
    routed.out(datagram(Endpoint(ALICE.host, 5001), SERVER))
    assert routed.forwarder.counts == {
        "dropped: no mapping": 1,
        "sent outside": 1,
        "dropped: filtered": 1,
        "dropped: mapping table full": 1,
    }


def test_a_packet_with_no_hop_left_goes_nowhere() -> None:
    routed = Routed("full-cone")
    raw = bytearray(build(datagram(ALICE, SERVER)))
    raw[8] = 1
    routed.forwarder.from_inside(bytes(raw), 0.0)
    routed.forwarder.release(0.0)
    assert routed.forwarder.counts == {"dropped: time to live is over": 1}


def test_what_cannot_be_sent_is_counted() -> None:
    routed = Routed("full-cone")
    routed.fails_with = errno.ENETUNREACH
    routed.out(datagram(ALICE, SERVER))
    assert routed.forwarder.counts == {"dropped: not sent, ENETUNREACH": 1}


def test_hairpinning_stays_on_this_side_of_the_line() -> None:
    routed = Routed("hairpinning", delay=1.0)
    bob = Endpoint("192.168.1.3", 6000)
    alice_outside, bob_outside = Endpoint(OUTSIDE, 5000), Endpoint(OUTSIDE, 6000)
    routed.out(datagram(bob, alice_outside))
    routed.out(datagram(ALICE, bob_outside))
    assert routed.taken() == [(Side.INSIDE, datagram(alice_outside, bob))]


def test_a_chain_of_nats_shows_the_address_of_the_last_one() -> None:
    routed = Routed("carrier")
    routed.out(datagram(ALICE, SERVER))
    ((_, sent),) = routed.taken()
    assert sent.source.host == OUTSIDE
    routed.in_(datagram(SERVER, sent.source))
    assert routed.taken() == [(Side.INSIDE, datagram(SERVER, ALICE))]
    # The carrier lets anyone in, the home does not.
    routed.in_(datagram(OTHER, sent.source))
    assert routed.taken() == []
    assert routed.forwarder.counts["dropped: filtered"] == 1
    assert routed.nats.count_mappings(0.0) == 2


def test_another_address_outside_is_that_of_the_last_nat_and_costs_its_mappings_only() -> None:
    routed = Routed("carrier")
    routed.out(datagram(ALICE, SERVER))
    ((_, before),) = routed.taken()
    routed.nats.set_outside("11.0.1.9")
    assert routed.nats.count_mappings(0.0) == 1
    routed.in_(datagram(SERVER, before.source))
    assert routed.taken() == []
    routed.out(datagram(ALICE, SERVER))
    ((_, after),) = routed.taken()
    assert after.source.host == "11.0.1.9"


def test_after_a_reset_no_nat_knows_anything() -> None:
    routed = Routed("carrier")
    routed.out(datagram(ALICE, SERVER))
    routed.nats.reset()
    assert routed.nats.count_mappings(0.0) == 0


def test_without_a_nat_everything_passes_as_it_is() -> None:
    routed = Routed("open")
    routed.out(datagram(ALICE, SERVER))
    routed.in_(syn(SERVER, ALICE))
    assert routed.taken() == [
        (Side.OUTSIDE, datagram(ALICE, SERVER)),
        (Side.INSIDE, syn(SERVER, ALICE)),
    ]


def test_an_inner_nat_answers_through_the_outer_one() -> None:
    # As a carrier that lets anyone in, before a home that answers resets.
    inner, outer = ALL_KINDS["port-restricted-reset"].nats[0], ALL_KINDS["full-cone"].nats[0]
    nats = make_nats((inner, outer), OUTSIDE, Random(1))
    opened = nats.outbound(syn(ALICE, SERVER), 0.0)
    answered = nats.inbound(syn(OTHER, Endpoint(OUTSIDE, 5000)), 0.0)
    assert isinstance(opened, Hop)
    assert isinstance(answered, Hop)
    assert answered.to is Side.OUTSIDE
    reset = answered.packet
    assert (reset.source, reset.destination) == (Endpoint(OUTSIDE, 5000), OTHER)
    assert isinstance(reset.payload, Segment)
    assert Flags.RST in reset.payload.flags


@pytest.mark.parametrize(
    ("text", "meant"), [("20ms", 0.02), ("1.5s", 1.5), ("0.25", 0.25), ("0", 0.0)]
)
def test_durations_are_read(text: str, meant: float) -> None:
    assert seconds(text) == pytest.approx(meant)


def test_one_layer_of_a_kind_can_be_had() -> None:
    assert layers("carrier", 1, None) == (ALL_KINDS["carrier"].nats[1],)
    assert layers("open", None, 5) == ()
    with pytest.raises(LaboratoryError, match="no layer"):
        layers("open", 0, None)
