"""IPv4 packets as a router reads, rewrites and cuts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interop.natlab.headers import (
    as_on_the_wire,
    build,
    checksum,
    one_hop_further,
    read,
    readdressed,
    updated,
)
from p2pnet.core.addresses import Endpoint
from p2pnet.errors import ProtocolError
from p2pnet.testing.packet import Datagram, Flags, Packet, Segment

# Sent by a Linux kernel that had to compute its checksums itself.
SYN = bytes.fromhex(
    "4500003c723b40004006b17f0b0001010b00000113890fa188cff86e00000000a002faf060a70000"
    "020405b40402080a2fa90152000000000103030a"
)
HELLO = bytes.fromhex(
    "45000039723d40004006b1800b0001010b00000113890fa188cff86fc9cc8bcc8018003f1f6e0000"
    "0101080a2fa90152169eba9368656c6c6f"
)
ODD_DATAGRAM = bytes.fromhex("4500001f509940004011d3330b0001010b00000113880d96000bf4536f6464")
# Received from a device that left the checksum to the next one: it covers addresses only.
UNFINISHED = bytes.fromhex(
    "45000039003340004006238b0b0000010b0001010fa11389c9cc8bcc88cff87480180040172d0000"
    "0101080a169eba932fa9015268656c6c6f"
)
UNFINISHED_DATAGRAM = bytes.fromhex(
    "4500001f8a4240004011998a0b0000010b0001010d961388000b171e6f6464"
)
CAPTURED = [SYN, HELLO, ODD_DATAGRAM]

INSIDE = Endpoint("192.168.1.2", 4001)
OUTSIDE = Endpoint("11.0.1.1", 61000)
REMOTE = Endpoint("11.0.0.1", 443)

endpoints = st.builds(
    Endpoint, st.ip_addresses(v=4).map(str), st.integers(min_value=0, max_value=65535)
)
flags = st.sampled_from(
    [Flags.SYN, Flags.SYN | Flags.ACK, Flags.ACK, Flags.RST, Flags.FIN | Flags.ACK, Flags.NONE]
)
number = st.integers(min_value=0, max_value=2**32 - 1)
data = st.binary(max_size=300)
segments = st.builds(
    Segment, flags, number, number, st.integers(min_value=0, max_value=65535), data
)
packets = st.builds(Packet, endpoints, endpoints, segments | st.builds(Datagram, data))


def is_sound(raw: bytes) -> bool:
    """Check both checksums by adding up words one by one, as a receiver does."""
    at = (raw[0] & 15) * 4
    rest = raw[at:]
    pseudo = raw[12:20] + bytes([0, raw[9]]) + len(rest).to_bytes(2)
    without = raw[9] == 17 and rest[6:8] == b"\0\0"
    return words_sum(raw[:at]) == 0xFFFF and (without or words_sum(pseudo + rest) == 0xFFFF)


def words_sum(text: bytes) -> int:
    total = 0
    for offset in range(0, len(text), 2):
        total += int.from_bytes(text[offset : offset + 2].ljust(2, b"\0"))
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_checksum_of_the_example_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_checksum_of_the_example_of_rfc_1624_becomes_zero_not_its_negative() -> None:
    assert updated(0xDD2F, b"\x55\x55", b"\x32\x85") == 0x0000


@given(st.binary(max_size=100))
def test_checksum_is_that_of_adding_word_by_word(text: bytes) -> None:
    assert checksum(text) == 0xFFFF - words_sum(text)


@pytest.mark.parametrize("raw", CAPTURED)
def test_captured_packets_are_sound_and_stay_as_they_are(raw: bytes) -> None:
    assert is_sound(raw)
    assert as_on_the_wire(raw) == [raw]


@pytest.mark.parametrize("raw", CAPTURED)
def test_a_computed_checksum_is_the_one_that_the_kernel_computed(raw: bytes) -> None:
    at = 20 + (16 if raw[9] == 6 else 6)
    blank = raw[:at] + b"\x12\x34" + raw[at + 2 :]
    assert as_on_the_wire(blank, checksum_missing=True) == [raw]


@pytest.mark.parametrize("raw", [UNFINISHED, UNFINISHED_DATAGRAM])
def test_a_missing_checksum_is_filled_in(raw: bytes) -> None:
    assert not is_sound(raw)
    (whole,) = as_on_the_wire(raw, checksum_missing=True)
    assert is_sound(whole)
    assert read(whole) == read(raw)


def test_a_captured_syn_is_read() -> None:
    assert read(SYN) == Packet(
        Endpoint("11.0.1.1", 5001),
        Endpoint("11.0.0.1", 4001),
        Segment(Flags.SYN, 0x88CFF86E, window=0xFAF0),
    )


def test_captured_data_is_read_without_the_options_before_it() -> None:
    payload = read(HELLO).payload
    assert payload == Segment(Flags.ACK, 0x88CFF86F, 0xC9CC8BCC, 0x3F, b"hello")
    assert read(ODD_DATAGRAM).payload == Datagram(b"odd")


@pytest.mark.parametrize("raw", CAPTURED)
def test_a_captured_packet_with_other_endpoints_is_sound_and_the_same_otherwise(raw: bytes) -> None:
    changed = readdressed(raw, OUTSIDE, REMOTE)
    assert is_sound(changed)
    assert read(changed) == Packet(OUTSIDE, REMOTE, read(raw).payload)
    before = read(raw)
    assert readdressed(changed, before.source, before.destination) == raw


@given(packets, endpoints, endpoints)
def test_other_endpoints_and_back_is_the_packet_as_it_was(
    packet: Packet, source: Endpoint, destination: Endpoint
) -> None:
    raw = build(packet)
    there = readdressed(raw, source, destination)
    assert is_sound(raw)
    assert is_sound(there)
    assert read(there) == Packet(source, destination, packet.payload)
    assert readdressed(there, packet.source, packet.destination) == raw


@given(packets)
def test_what_is_built_is_read_again(packet: Packet) -> None:
    assert as_on_the_wire(build(packet)) == [build(packet)]
    assert read(build(packet)) == packet


@given(packets, st.integers(min_value=0, max_value=299))
def test_a_damaged_packet_stays_damaged(packet: Packet, where: int) -> None:
    raw = bytearray(build(packet))
    at = 20 + (8 if packet.transport == "udp" else 20) + where
    if at < len(raw):
        raw[at] ^= 0x01
        assert not is_sound(readdressed(bytes(raw), OUTSIDE, REMOTE))


def test_a_datagram_without_a_checksum_stays_without() -> None:
    raw = ODD_DATAGRAM[:26] + b"\0\0" + ODD_DATAGRAM[28:]
    assert readdressed(raw, OUTSIDE, REMOTE)[26:28] == b"\0\0"


def test_a_datagram_whose_checksum_becomes_zero_says_so_with_ones() -> None:
    # Zero would mean that there is none (RFC 768). Any port makes another checksum: one fits.
    for port in range(65536):
        changed = readdressed(ODD_DATAGRAM, Endpoint("11.0.1.1", port), REMOTE)
        assert changed[26:28] != b"\0\0"
        if changed[26:28] == b"\xff\xff":
            assert is_sound(changed)
            return
    pytest.fail("no port gave the checksum zero")


@given(packets)
def test_each_hop_takes_one_off_the_time_to_live(packet: Packet) -> None:
    further = one_hop_further(build(packet))
    assert further[8] == 63
    assert is_sound(further)
    assert read(further) == packet


@pytest.mark.parametrize("left", [0, 1])
def test_a_packet_that_went_too_far_is_refused(left: int) -> None:
    with pytest.raises(ProtocolError, match="time to live"):
        one_hop_further(SYN[:8] + bytes([left]) + SYN[9:])


def with_length(raw: bytes) -> bytes:
    changed = raw[:2] + len(raw).to_bytes(2) + raw[4:]
    return changed if raw[9] == 6 else changed[:24] + (len(raw) - 20).to_bytes(2) + changed[26:]


@given(st.binary(min_size=1, max_size=5000), st.integers(min_value=1, max_value=1460))
def test_segments_given_as_one_are_cut_apart(text: bytes, most: int) -> None:
    headers = HELLO[:-5]
    fin_psh_cwr_ack = headers[:33] + b"\x99" + headers[34:]
    cut = as_on_the_wire(
        with_length(fin_psh_cwr_ack + text), checksum_missing=True, segment_bytes=most
    )
    assert all(map(is_sound, cut))
    assert all(len(raw) <= len(headers) + most for raw in cut)
    assert [raw[13 + 20] for raw in cut] == (
        [0x99] if len(cut) == 1 else [0x90] + [0x10] * (len(cut) - 2) + [0x19]
    )
    expected = 0x88CFF86F
    for raw in cut:
        payload = read(raw).payload
        assert isinstance(payload, Segment)
        assert payload.sequence == expected
        assert raw[40:52] == headers[40:52]  # Options, such as the timestamps.
        expected += len(payload.data)
    assert b"".join(read(raw).payload.data for raw in cut) == text


def test_sequence_numbers_of_cut_segments_wrap_around() -> None:
    raw = with_length(HELLO[:24] + b"\xff\xff\xff\xfe" + HELLO[28:-5] + b"abcdef")
    cut = [read(piece).payload for piece in as_on_the_wire(raw, segment_bytes=3)]
    assert [piece.sequence for piece in cut if isinstance(piece, Segment)] == [0xFFFFFFFE, 1]


def test_datagrams_given_as_one_are_cut_apart() -> None:
    raw = with_length(ODD_DATAGRAM[:-3] + b"abcdefg")
    cut = as_on_the_wire(raw, checksum_missing=True, segment_bytes=3)
    assert all(map(is_sound, cut))
    assert [read(piece).payload for piece in cut] == [
        Datagram(b"abc"),
        Datagram(b"def"),
        Datagram(b"g"),
    ]


def test_what_a_short_ethernet_frame_is_filled_up_with_is_cut_off() -> None:
    assert as_on_the_wire(ODD_DATAGRAM + bytes(15)) == [ODD_DATAGRAM]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no IPv4 header"),
        (SYN[:19], "no IPv4 header"),
        (b"\x60" + SYN[1:], "no IPv4 header"),
        (SYN[:-1], "lengths"),
        (b"\x44" + SYN[1:], "lengths"),
        (b"\x4f" + SYN[1:], "lengths"),
        (SYN[:2] + b"\0\x27" + SYN[4:], "lengths"),
        (SYN[:32] + b"\xf0" + SYN[33:], "ends within a header"),
        (SYN[:32] + b"\x40" + SYN[33:], "TCP header"),
        (ODD_DATAGRAM[:24] + b"\0\x0a" + ODD_DATAGRAM[26:], "UDP length"),
        (SYN[:9] + b"\x01" + SYN[10:], "neither TCP nor UDP"),
        (SYN[:6] + b"\x20\0" + SYN[8:], "fragment"),
        (SYN[:6] + b"\0\x01" + SYN[8:], "fragment"),
    ],
)
def test_what_cannot_be_translated_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ProtocolError, match=reason):
        as_on_the_wire(raw)


@given(st.binary(max_size=80), st.booleans(), st.integers(min_value=0, max_value=2000))
def test_garbage_raises_protocol_error_only(raw: bytes, missing: bool, most: int) -> None:
    for damaged in (raw, SYN[: len(raw)] + raw, b"\x45" + raw):
        try:
            cut = as_on_the_wire(damaged, checksum_missing=missing, segment_bytes=most)
        except ProtocolError:
            continue
        for piece in cut:
            read(readdressed(piece, INSIDE, REMOTE))
