"""The parts of the probes that need no network: messages, lines, judgements and meetings."""

from __future__ import annotations

import json
import string
from collections.abc import Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.nat_kind import Dependence, PortChoice
from p2pnet.testing.probing.__main__ import endpoint
from p2pnet.testing.probing.judging import (
    Classification,
    Observers,
    judge_filtering,
    judge_mapping,
    judge_step,
)
from p2pnet.testing.probing.lines import Lines
from p2pnet.testing.probing.meeting import (
    DATAGRAM_INTERVAL,
    LINGER_SECONDS,
    Appointment,
    UdpMeeting,
)
from p2pnet.testing.probing.messages import (
    MAX_MESSAGE_BYTES,
    MAX_ROUND_TRIP,
    MAX_TEXT,
    Bye,
    Delegate,
    Go,
    Hello,
    Hit,
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
from p2pnet.testing.probing.rendezvous import Guest

ONE, OTHER = Endpoint("11.0.1.1", 4001), Endpoint("11.0.2.1", 4001)

texts = st.text(string.ascii_letters + string.digits + ' "\\~', min_size=1, max_size=40)
ports = st.integers(1, 65_535)
hosts = st.sampled_from(["11.0.1.1", "255.255.255.255", "::", "2600:1:2:3:4:5:6:7"])
endpoints = st.builds(Endpoint, hosts, ports)
round_trips = st.floats(0, MAX_ROUND_TRIP)
messages = st.one_of(
    st.builds(Where, texts),
    st.builds(Seen, texts, endpoints),
    st.builds(Probe, texts, st.sampled_from(Origin), st.integers(0, 65_535)),
    st.builds(Hit, texts),
    st.builds(Probed, texts, st.sampled_from(Outcome)),
    st.builds(Delegate, texts, st.sampled_from(["udp", "tcp"]), endpoints),
    st.builds(Meet, texts, texts, round_trips),
    st.builds(Go, texts, endpoints, endpoints, round_trips),
    st.builds(Hello, texts, texts, st.integers(0, 2)),
    st.builds(Bye),
)
values: st.SearchStrategy[object] = st.one_of(
    st.sampled_from([None, True, [], {}, "", "udp", {"host": "11.0.0.1", "port": 1}]),
    st.integers(),
    st.floats(),
    st.fixed_dictionaries({"host": hosts | texts, "port": st.integers()}),
)
FIELDS = ("token", "endpoint", "origin", "port", "outcome", "transport", "name", "peer", "stage")
KINDS = ("seen", "probe", "probed", "delegate", "meet", "go", "hello")


# ---- messages -----------------------------------------------------------------------------


@given(messages)
def test_a_message_survives_the_way(message: Message) -> None:
    assert len(encode(message)) <= MAX_MESSAGE_BYTES
    assert b"\n" not in encode(message)
    assert decode_untrusted(encode(message)) == message


@given(st.binary(max_size=100))
def test_garbage_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(data)


@given(st.sampled_from(KINDS), st.dictionaries(st.sampled_from(FIELDS), values))
def test_wrong_fields_are_a_protocol_error_and_nothing_else(
    kind: str, fields: dict[str, object]
) -> None:
    try:
        message = decode_untrusted(json.dumps({"kind": kind, **fields}).encode())
    except ProtocolError:
        return
    assert decode_untrusted(encode(message)) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "where", "token": "x" * (MAX_TEXT + 1)},
        {"kind": "where", "token": "\ud800"},
        {"kind": "where", "token": ""},
        {"kind": "where"},
        {"kind": "what"},
        {"kind": "seen", "token": "1", "endpoint": {"host": "11.0.0.1", "port": 0}},
        {"kind": "seen", "token": "1", "endpoint": {"host": "11.0.0.1", "port": True}},
        {"kind": "seen", "token": "1", "endpoint": {"host": "example.org", "port": 1}},
        {"kind": "seen", "token": "1", "endpoint": {"host": "fe80::1%eth0", "port": 1}},
        {"kind": "seen", "token": "1", "endpoint": "11.0.0.1:1"},
        {"kind": "probe", "token": "1", "origin": "elsewhere", "port": 0},
        {"kind": "probe", "token": "1", "origin": "port", "port": 65_536},
        {"kind": "probed", "token": "1", "outcome": "eaten"},
        {"kind": "meet", "name": "a", "peer": "b", "round_trip": -1},
        {"kind": "meet", "name": "a", "peer": "b", "round_trip": float("nan")},
        {"kind": "meet", "name": "a", "peer": "b", "round_trip": False},
        {"kind": "hello", "meeting": "m", "name": "a", "stage": 3},
        ["where"],
    ],
)
def test_what_a_message_must_not_say(fields: object) -> None:
    with pytest.raises(ProtocolError):
        decode_untrusted(json.dumps(fields).encode())


def test_a_message_is_held_against_its_limit_before_it_is_read() -> None:
    padded = encode(Bye()) + b" " * MAX_MESSAGE_BYTES
    with pytest.raises(ProtocolError, match="bytes"):
        decode_untrusted(padded)
    with pytest.raises(ProtocolError):
        decode_untrusted(b"[" * MAX_MESSAGE_BYTES)


@pytest.mark.parametrize("claimed", ["1e999", "9" * 600])
def test_nobody_is_believed_to_be_further_away_than_the_moon(claimed: str) -> None:
    data = b'{"kind": "meet", "name": "a", "peer": "b", "round_trip": %s}' % claimed.encode()
    assert decode_untrusted(data) == Meet("a", "b", MAX_ROUND_TRIP)


# ---- lines --------------------------------------------------------------------------------


class Chunks(trio.abc.ReceiveStream):
    """A stream that gives what it was given, and then ends."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return self._chunks.pop(0) if self._chunks else b""

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def lines_of(*chunks: bytes) -> Lines:
    return Lines(trio.StapledStream(trio.testing.MemorySendStream(), Chunks(*chunks)))


@given(st.lists(messages, max_size=3), st.integers(1, 50))
def test_lines_are_the_same_in_any_chunks(said: list[Message], size: int) -> None:
    data = b"".join(encode(message) + b"\n" for message in said)
    lines = lines_of(*(data[at : at + size] for at in range(0, len(data), size)))
    heard = []

    async def listen() -> None:
        while True:
            heard.append(await lines.receive())

    with pytest.raises(trio.EndOfChannel):
        trio.run(listen)
    assert heard == said


async def test_a_line_without_end_is_given_up() -> None:
    lines = lines_of(b" " * MAX_MESSAGE_BYTES, b" ", b"\n")
    with pytest.raises(ProtocolError, match="without end"):
        await lines.receive()


# ---- judgements ---------------------------------------------------------------------------


def test_mapping_is_told_by_what_the_observers_saw() -> None:
    moved = Endpoint(ONE.host, 4002)
    assert judge_mapping(ONE, ONE, ONE) is Dependence.ENDPOINT_INDEPENDENT
    assert judge_mapping(ONE, ONE, moved) is Dependence.ADDRESS
    assert judge_mapping(ONE, moved, moved) is Dependence.ADDRESS_AND_PORT
    assert judge_mapping(ONE, OTHER, ONE) is Dependence.ADDRESS_AND_PORT


def test_filtering_is_told_by_what_came_in() -> None:
    def judged(*, port: bool, address: bool) -> Dependence:
        return judge_filtering(passes_port=port, passes_address=address)

    assert judged(port=True, address=True) is Dependence.ENDPOINT_INDEPENDENT
    assert judged(port=False, address=True) is Dependence.ENDPOINT_INDEPENDENT
    assert judged(port=True, address=False) is Dependence.ADDRESS
    assert judged(port=False, address=False) is Dependence.ADDRESS_AND_PORT


@pytest.mark.parametrize(
    ("seen", "step"),
    [
        ([1024, 1025, 1026, 1027], 1),
        ([1024, 1026, 1027, 1031], 1),  # others got some in between
        ([2000, 2256, 2512, 2768], 256),
        ([2000, 2002, 2005], None),
        ([2000, 2000, 2001], None),
        ([1027, 1026, 1025], None),
        ([1024, 40_000, 61_000, 62_000], None),
        ([1024], None),
    ],
)
def test_the_step_of_a_sequence_is_found(seen: list[int], step: int | None) -> None:
    assert judge_step(seen) == step


def test_observers_are_three_at_two_addresses() -> None:
    one, port = Endpoint("11.0.0.1", 7001), Endpoint("11.0.0.1", 7002)
    other = Endpoint("11.0.0.2", 7001)
    assert Observers.among([one, other, port]) == Observers(one, port, other)
    for too_few in ([], [one], [one, port], [one, other]):
        with pytest.raises(ValueError, match="observers"):
            Observers.among(too_few)


@pytest.mark.parametrize(
    ("found", "ports"),
    [
        (Classification(transport="udp", blocked=True), None),
        (Classification(transport="udp", preserves_port=True), PortChoice.PRESERVING),
        (Classification(transport="udp", port_step=1), PortChoice.SEQUENTIAL),
        (Classification(transport="udp"), PortChoice.RANDOM),
    ],
)
def test_the_choice_of_ports_follows_from_the_rest(
    found: Classification, ports: PortChoice | None
) -> None:
    assert found.ports is ports


def test_both_guests_are_told_the_same_meeting_and_at_the_same_moment() -> None:
    near, far = Guest(OTHER, round_trip=0.02), Guest(ONE, round_trip=0.1)
    assert near.go(far) == Go("11.0.1.1:4001~11.0.2.1:4001", OTHER, ONE, 0.02 + 0.1)
    assert far.go(near).meeting == near.go(far).meeting
    arrives = [
        guest.lead(peer) + guest.round_trip / 2 for guest, peer in ((near, far), (far, near))
    ]
    assert arrives[0] == pytest.approx(arrives[1])


def test_an_endpoint_is_read_from_the_command_line() -> None:
    assert endpoint("11.0.0.1:7001") == Endpoint("11.0.0.1", 7001)
    assert endpoint("[::1]:7001") == Endpoint("::1", 7001)
    with pytest.raises(ValueError, match="IPv4 or IPv6"):
        endpoint("example.org:1")


# ---- two hosts meet by datagrams ----------------------------------------------------------


class Wire:
    """Two datagram sockets; ``loses`` decides on each datagram by its number, from 0."""

    def __init__(self, loses: Callable[[int], bool] = lambda _: False) -> None:
        self.sent: list[Hello] = []
        self._loses = loses
        self.ends = {ONE: WireSocket(ONE, self), OTHER: WireSocket(OTHER, self)}

    def carry(self, data: bytes, source: Endpoint, target: Endpoint) -> None:
        number = len(self.sent)
        message = decode_untrusted(data)
        assert isinstance(message, Hello)
        self.sent.append(message)
        if target in self.ends and not self._loses(number):
            self.ends[target].arrive(data, source)


class WireSocket:
    def __init__(self, local: Endpoint, wire: Wire) -> None:
        self.local = local
        self._wire = wire
        self._send, self._receive = trio.open_memory_channel[tuple[bytes, Endpoint]](1000)

    def arrive(self, data: bytes, source: Endpoint) -> None:
        self._send.send_nowait((data, source))

    async def send(self, data: bytes, remote: Endpoint) -> None:
        await trio.lowlevel.checkpoint()
        self._wire.carry(data, self.local, remote)

    async def receive(self) -> tuple[bytes, Endpoint]:
        return await self._receive.receive()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def meet(wire: Wire, *, seen: Endpoint = OTHER) -> tuple[UdpMeeting, UdpMeeting]:
    """Let a and b meet, where a was told that b is at ``seen``."""
    a = UdpMeeting(wire.ends[ONE], Appointment("m", "a", "b", seen))
    b = UdpMeeting(wire.ends[OTHER], Appointment("m", "b", "a", ONE))
    with trio.move_on_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.run)
            nursery.start_soon(b.run)
    return a, b


async def test_two_hosts_meet_and_both_know_it(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire()
    a, b = await meet(wire)
    assert a.met is not None
    assert b.met is not None
    assert (a.met.remote, b.met.remote) == (OTHER, ONE)
    assert trio.current_time() < DATAGRAM_INTERVAL  # nobody waited for anything
    assert {hello.stage for hello in wire.sent} == {0, 1, 2}


@pytest.mark.parametrize("lost", range(2, 9))
async def test_two_hosts_meet_whatever_datagrams_are_lost(
    autojump_clock: trio.testing.MockClock, lost: int
) -> None:
    a, b = await meet(Wire(lambda number: number % 11 < lost))
    assert a.met is not None
    assert b.met is not None


async def test_the_source_that_is_observed_is_taken_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    a, b = await meet(Wire(), seen=Endpoint(OTHER.host, 5999))  # b's NAT took another port
    assert a.met is not None
    assert a.met.remote == OTHER
    assert b.met is not None


async def test_one_way_is_no_way(autojump_clock: trio.testing.MockClock) -> None:
    wire = Wire()
    wire.ends[ONE].arrive = lambda data, source: None  # type: ignore[method-assign]
    a, b = await meet(wire)
    assert a.met is None
    assert b.met is None
    assert {hello.stage for hello in wire.sent} == {0, 1}
    assert b.reason == "silence"


async def test_who_met_stays_for_the_last_word_but_not_for_ever(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = Wire()
    a = UdpMeeting(wire.ends[ONE], Appointment("m", "a", "b", OTHER))
    wire.ends[ONE].arrive(encode(Hello("m", "b", 1)), OTHER)
    await a.run()
    assert a.met is not None
    assert trio.current_time() == pytest.approx(LINGER_SECONDS)


async def test_strangers_and_other_meetings_do_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = Wire()
    a = UdpMeeting(wire.ends[ONE], Appointment("m", "a", "b", OTHER))
    for message in (Hello("m", "c", 1), Hello("old", "b", 1), Hello("m", "a", 1), Bye()):
        wire.ends[ONE].arrive(encode(message), OTHER)
    wire.ends[ONE].arrive(b"noise", OTHER)
    with trio.move_on_after(2):
        await a.run()
    assert a.met is None
    assert {hello.stage for hello in wire.sent} == {0}
