"""Whatever packets come, in whatever order: the NAT does what a slow and obvious one does."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Dependence, Dropped, Hop, Nat, NatKind, PortChoice, Side
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment, TransportName
from tests.testing.nat_model import OUTSIDE, ModelNat

PORTS = range(4000, 4004)
INSIDES = tuple(Endpoint(f"192.168.1.{n}", port) for n in (2, 3) for port in (4001, 4002))
REMOTES = tuple(Endpoint(f"11.0.0.{n}", port) for n in (8, 9) for port in (53, 54))
OUTSIDES = tuple(Endpoint(OUTSIDE, port) for port in PORTS)
FLAGS = st.sampled_from(
    [
        *[Flags.SYN] * 4,
        *[Flags.SYN | Flags.ACK] * 3,
        *[Flags.ACK] * 3,
        Flags.FIN | Flags.ACK,
        Flags.RST,
        Flags.RST | Flags.ACK,
        Flags.SYN | Flags.FIN,
        Flags.NONE,
    ]
)
WAITS = st.sampled_from([0.0, 0.0, 0.0, 1.0, 59.0, 60.0, 119.0, 120.0, 121.0, 240.0, 7440.0])


@dataclass(frozen=True)
class Knock:
    """A packet: who sends it, to whom, after how long."""

    wait: float
    outbound: bool
    transport: TransportName
    inside: Endpoint
    remote: Endpoint
    outside: Endpoint
    flags: Flags
    hairpin: bool

    def packet(self, *, translates: bool) -> Packet:
        payload = Datagram(b"") if self.transport == "udp" else Segment(self.flags, 7)
        if self.outbound:
            return Packet(self.inside, self.outside if self.hairpin else self.remote, payload)
        return Packet(self.remote, self.outside if translates else self.inside, payload)


@dataclass(frozen=True)
class Forward:
    """A port is mapped, or (for no seconds) taken back."""

    wait: float
    transport: TransportName
    inside: Endpoint
    port: int
    seconds: float | None


TRANSPORTS: st.SearchStrategy[TransportName] = st.sampled_from(["udp", "tcp"])
KNOCKS = st.builds(
    Knock,
    wait=WAITS,
    outbound=st.booleans(),
    transport=TRANSPORTS,
    inside=st.sampled_from(INSIDES),
    remote=st.sampled_from(REMOTES),
    outside=st.sampled_from(OUTSIDES),
    flags=FLAGS,
    hairpin=st.sampled_from([False, False, False, True]),
)
FORWARDS = st.builds(
    Forward,
    wait=WAITS,
    transport=TRANSPORTS,
    inside=st.sampled_from(INSIDES),
    port=st.sampled_from(PORTS),
    seconds=st.sampled_from([None, 60.0, 500.0, 0.0]),
)
ACTIONS = st.lists(
    st.one_of(KNOCKS, KNOCKS, KNOCKS, KNOCKS, FORWARDS, st.just("reboot")), max_size=40
)
KINDS = st.builds(
    NatKind,
    mapping=st.sampled_from(Dependence),
    filtering=st.sampled_from(Dependence),
    ports=st.sampled_from(PortChoice),
    hairpinning=st.booleans(),
    answers_reset=st.booleans(),
    refuses_simultaneous_open=st.booleans(),
    translates=st.sampled_from([True, True, True, False]),
    udp_blocked=st.sampled_from([False, False, False, True]),
    refresh_inbound=st.booleans(),
    max_mappings=st.sampled_from([1, 3, 100]),
    max_sessions=st.sampled_from([2, 5, 100]),
    first_port=st.just(PORTS[0]),
    last_port=st.just(PORTS[-1]),
)


class Pair:
    """A NAT and its model, which must agree at every step."""

    def __init__(self, kind: NatKind) -> None:
        self.kind = kind
        self.nat = Nat(kind, outside=[OUTSIDE], choose=Random(3).randrange)
        self.model = ModelNat(kind)
        self.now = 0.0

    def knock(self, knock: Knock) -> None:
        packet = knock.packet(translates=self.kind.translates)
        if knock.outbound:
            if self.is_ambiguous(knock):
                return
            got = self.nat.outbound(packet, self.now)
            assert got == self.model.outbound(packet, self.now, got)
        else:
            got = self.nat.inbound(packet, self.now)
            self.check_filter(packet, got)
            assert got == self.model.inbound(packet, self.now)

    def is_ambiguous(self, knock: Knock) -> bool:
        """Tell whether a new mapping's port would not be seen, since its packet turns back."""
        return (
            knock.hairpin
            and self.kind.hairpinning
            and not any(
                mapping.inside == knock.inside and mapping.transport == knock.transport
                for mapping in self.nat.mappings(self.now)
            )
        ) or (knock.hairpin and self.kind.mapping is not Dependence.ENDPOINT_INDEPENDENT)

    def check_filter(self, packet: Packet, got: Hop | Dropped) -> None:
        """What was let in has a live mapping."""
        if isinstance(got, Hop) and got.to is Side.INSIDE:
            ends = {
                (mapping.transport, mapping.outside): mapping.inside
                for mapping in self.model.mapped
                if self.now < self.model.expires(mapping)
            }
            assert ends[packet.transport, packet.destination] == got.packet.destination

    def forward(self, forward: Forward) -> None:
        transport, inside, port = forward.transport, forward.inside, forward.port
        if forward.seconds == 0.0:
            # The real one forgets what has expired when the next packet comes, or this.
            self.nat.mappings(self.now)
            self.model.forget(self.now)
            got = self.nat.unmap_port(transport, port)
            assert got is self.model.unmap_port(transport, port, self.now)
        else:
            seconds = forward.seconds
            outside = self.nat.map_port(transport, inside, port, seconds=seconds, now=self.now)
            assert outside == self.model.map_port(transport, inside, port, seconds, self.now)

    def compare(self) -> None:
        self.model.forget(self.now)
        mappings = self.nat.mappings(self.now)
        assert len({(mapping.transport, mapping.outside) for mapping in mappings}) == len(mappings)
        assert [(m.transport, m.inside, m.outside, m.expires) for m in mappings] == [
            (m.transport, m.inside, m.outside, self.model.expires(m)) for m in self.model.mapped
        ]
        assert self.nat.expires() == max((m.expires for m in mappings), default=None)


@settings(max_examples=250, deadline=None)
@given(KINDS, ACTIONS)
def test_the_nat_does_what_the_obvious_one_does(
    kind: NatKind, actions: list[Knock | Forward | str]
) -> None:
    """NT1 NT3 NT5 to NT18."""
    pair = Pair(kind)
    for action in actions:
        if isinstance(action, str):
            pair.nat.reset()
            pair.model = ModelNat(kind)
            continue
        pair.now += action.wait
        if isinstance(action, Knock):
            pair.knock(action)
        else:
            pair.forward(action)
        pair.compare()


@settings(max_examples=100, deadline=None)
@given(KINDS, ACTIONS)
def test_nothing_is_left_when_all_has_expired(
    kind: NatKind, actions: list[Knock | Forward | str]
) -> None:
    """Neither a mapping nor anything by which one would be found."""
    pair = Pair(kind)
    for action in actions:
        if isinstance(action, Knock):
            pair.now += action.wait
            packet = action.packet(translates=kind.translates)
            push = pair.nat.outbound if action.outbound else pair.nat.inbound
            push(packet, pair.now)
    pair.nat.mappings(pair.now + 7440.0)
    bindings = vars(pair.nat._bindings)
    assert {name: value for name, value in bindings.items() if value} == {
        name: value for name, value in bindings.items() if name == "_queued" and value
    }
