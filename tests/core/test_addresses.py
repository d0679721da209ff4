from __future__ import annotations

import ipaddress
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from p2pnet.core.addresses import (
    MAX_ADDRESS_BYTES,
    MAX_COMPONENTS,
    Circuit,
    Endpoint,
    Multiaddr,
    Place,
    Scope,
    circuit_address,
    circuit_of,
    components,
    decode_many_untrusted,
    decode_untrusted,
    dns_name,
    encode,
    from_endpoint,
    ip_of,
    is_relayed,
    join,
    parse,
    peer_id_of,
    place_of,
    scope,
    scope_of_ip,
    scope_of_name,
    tcp_endpoint,
    unwrapped,
    with_host,
    with_peer,
    without_peer,
)
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError

RELAY = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA")
PEER = PeerId.parse("QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N")

peer_ids = st.binary(min_size=32, max_size=32).map(lambda digest: PeerId(b"\x12\x20" + digest))
names = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?(\.[a-z]{2,6}){1,3}", fullmatch=True)
hosts = st.one_of(
    st.ip_addresses(v=4).map(lambda ip: f"/ip4/{ip}"),
    st.ip_addresses(v=6).map(lambda ip: f"/ip6/{ip}"),
    st.tuples(st.sampled_from(["dns", "dns4", "dns6", "dnsaddr"]), names).map(
        lambda kind: f"/{kind[0]}/{kind[1]}"
    ),
)
ports = st.integers(0, 65535)
tails = st.sampled_from(["", "/tls/ws", "/ws", "/noise", "/sni/a.example", "/http-path/a%2Fb"])
direct_addresses = st.builds(
    lambda host, kind, port, tail: parse(f"{host}/{kind}/{port}{tail}"),
    hosts,
    st.sampled_from(["tcp", "udp"]),
    ports,
    tails,
)
addresses = st.one_of(
    direct_addresses,
    st.builds(with_peer, direct_addresses, peer_ids),
    st.builds(
        lambda address, relay, target: circuit_address(with_peer(address, relay), target),
        direct_addresses,
        peer_ids,
        st.none() | peer_ids,
    ),
)


@given(addresses)
def test_addresses_survive_the_way_through_bytes_and_text(address: Multiaddr) -> None:
    assert decode_untrusted(encode(address)) == address
    assert parse(str(address)) == address
    assert join(components(address)) == address


# ---- untrusted bytes ---------------------------------------------------------------------

CODES = [4, 6, 41, 42, 43, 53, 54, 55, 56, 273, 290, 400, 421, 444, 445, 446, 447, 449, 466]
CODES += [477, 478, 481, 777, 132, 460, 461, 465, 448]


def varint(number: int) -> bytes:
    low = bytes([number & 0x7F | (0x80 if number > 0x7F else 0)])
    return low + varint(number >> 7) if number > 0x7F else low


almost_component = st.builds(
    lambda code, length, value: varint(code) + (varint(length) if length else b"") + value,
    st.sampled_from(CODES) | st.integers(0, 1000),
    st.integers(0, 60),
    st.binary(max_size=60),
)


@given(
    st.binary(max_size=1100) | st.lists(almost_component, max_size=6).map(b"".join),
)
@example(b"\x80")
@example(b"\xff" * 1024)
@example(b"\xa5\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")
@example(b"\xa5\x03\x03\x12\x01\xaa")  # a multihash, but not of a key
@example(b"\xa5\x03\x02\x00\x00")
@example(b"\x2a\x04eth0\x29" + bytes(16))
@example(b"\x35\x03a/b\x06\x00\x50")
@example(b"\x36\x05\xff\xfe\xfd\xfc\xfb")
def test_a1_a2_a5_garbage_is_a_protocol_error_or_an_address_that_all_questions_fit(
    data: bytes,
) -> None:
    try:
        address = decode_untrusted(data)
    except ProtocolError:
        return
    assert encode(address) == data
    assert parse(str(address)) == address
    assert 0 < len(components(address)) <= MAX_COMPONENTS
    ask_everything(address)


def ask_everything(address: Multiaddr) -> None:
    peer_id_of(address)
    is_relayed(address)
    scope(address)
    tcp_endpoint(address)
    place_of(address)
    dns_name(address)
    ip_of(address)
    without_peer(address)
    with_peer(address, PEER)
    with suppress(ValueError):
        circuit_of(address)


@given(addresses, st.data())
def test_a2_a_truncated_address_is_refused_or_ends_between_components(
    address: Multiaddr, data: st.DataObject
) -> None:
    whole = encode(address)
    cut = data.draw(st.integers(0, len(whole) - 1))
    try:
        shorter = decode_untrusted(whole[:cut])
    except ProtocolError:
        return
    kept = components(shorter)
    assert components(address)[: len(kept)] == kept


def test_a1_an_address_is_at_most_so_long() -> None:
    longest = parse("/dns/" + ".".join(["a" * 60] * 4) + "/tcp/1" * 2)
    assert decode_untrusted(encode(longest)) == longest
    for data in (b"", b"\x04\x01\x02\x03\x04" * 205):
        with pytest.raises(ProtocolError, match=f"address of {len(data)} bytes"):
            decode_untrusted(data)


def test_a1_an_address_has_at_most_so_many_components() -> None:
    most = b"\x06\x00\x01" * MAX_COMPONENTS
    assert len(components(decode_untrusted(most))) == MAX_COMPONENTS
    with pytest.raises(ProtocolError, match="malformed"):
        decode_untrusted(most + b"\x06\x00\x01")


def test_a3_one_bad_address_does_not_spoil_the_others() -> None:
    good, other = parse("/ip4/1.2.3.4/tcp/1"), parse("/ip6/::1/tcp/2")
    data = [encode(good), b"\x04\x01", encode(other), b"", encode(good)]
    assert decode_many_untrusted(data) == (good, other)


# ---- text --------------------------------------------------------------------------------


@given(
    st.text()
    | st.text().map(lambda text: "/" + text)
    | st.lists(
        st.sampled_from(
            [
                "ip4",
                "1.2.3.4",
                "ip6",
                "::1",
                "tcp",
                "80",
                "dns",
                "dnsaddr",
                "a.b",
                "p2p",
                str(PEER),
                "p2p-circuit",
                "",
                "ip6zone",
                "eth0",
                "unix",
                "onion",
                "onion3",
                "x:1",
                "certhash",
                "uEi",
                "ipcidr",
                "24",
                "memory",
                "-1",
                "garlic32",
                "garlic64",
                "http-path",
                "%",
                "\udc80",
            ]
        ),
        max_size=20,
    ).map(lambda parts: "/" + "/".join(parts))
)
@example("/p2p/k51qzi5uqu5dgutdk6i1ynyzgkqngpha5xpgia3a5qqp4jsh0u4csozksxel2r")
def test_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = parse(text)
    except ValueError:
        return
    assert decode_untrusted(encode(address)) == address
    ask_everything(address)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must begin with '/'"),
        ("1.2.3.4:80", "must begin with '/'"),
        ("/", "0 components"),
        ("/ip4", "missing value"),
        ("/ip4/1.2.3", "not IPv4"),
        ("/ip4/1.2.3.4/tcp/65536", "not in range"),
        ("/ip5/1.2.3.4", "ip5"),
        ("/dns/" + "a" * 5000, "5005 characters is too long"),
        ("/tcp/1" * 17, "17 components"),
        ("/dns/" + "/dns/".join([".".join(["a" * 60] * 4)] * 5), "bytes is too long"),
        ("/p2p/QmYyQSo", "Invalid CID"),
        ("/p2p/73o7", "not a peer id"),
        ("/ip6zone/eth0/ip6/fe80::1/tcp/1", "not a multiaddr"),
    ],
)
def test_what_is_wrong_with_a_text_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        parse(text)


def test_a5_both_text_forms_of_a_peer_id_give_the_same_bytes() -> None:
    assert parse(f"/p2p/{PEER.to_cid()}") == parse(f"/p2p/{PEER}")
    assert encode(parse(f"/p2p/{PEER.to_cid()}")) == b"\xa5\x03\x22" + PEER.to_bytes()


# ---- peers and circuits ------------------------------------------------------------------


def test_a_peer_is_put_on_once_and_taken_off_again() -> None:
    bare = parse("/ip4/1.2.3.4/tcp/1")
    full = with_peer(bare, PEER)
    assert str(full) == f"/ip4/1.2.3.4/tcp/1/p2p/{PEER}"
    assert with_peer(full, PEER) == full
    assert peer_id_of(full) == PEER
    assert peer_id_of(bare) is None
    assert without_peer(full) == bare
    assert without_peer(bare) == bare


def test_an_address_of_nothing_but_a_peer_keeps_it() -> None:
    alone = parse(f"/p2p/{PEER}")
    assert without_peer(alone) == alone


@pytest.mark.parametrize(
    ("text", "circuit"),
    [
        (f"/p2p/{RELAY}/p2p-circuit", Circuit(None, RELAY, None)),
        (f"/p2p/{RELAY}/p2p-circuit/p2p/{PEER}", Circuit(None, RELAY, PEER)),
        (
            f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
            Circuit(parse("/ip4/1.2.3.4/tcp/1"), RELAY, PEER),
        ),
    ],
)
def test_a6_a_circuit_is_taken_apart(text: str, circuit: Circuit) -> None:
    assert is_relayed(parse(text))
    assert circuit_of(parse(text)) == circuit


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/tcp/1",
        "/p2p-circuit",
        f"/p2p-circuit/p2p/{PEER}",
        f"/ip4/1.2.3.4/tcp/1/p2p-circuit/p2p/{PEER}",
        f"/p2p/{RELAY}/p2p-circuit/p2p/{RELAY}/p2p-circuit/p2p/{PEER}",
        f"/p2p/{RELAY}/p2p-circuit/tcp/1",
        f"/p2p/{RELAY}/p2p-circuit/p2p/{PEER}/tcp/1",
    ],
)
def test_a6_what_is_no_circuit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="p2p"):
        circuit_of(parse(text))


def test_a6_a_circuit_is_put_together() -> None:
    relay = parse(f"/ip4/1.2.3.4/tcp/1/p2p/{RELAY}")
    assert str(circuit_address(relay)) == f"{relay}/p2p-circuit"
    assert circuit_of(circuit_address(relay, PEER)).target == PEER


# ---- endpoints and names -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "text"),
    [
        (Endpoint("1.2.3.4", 80), "/ip4/1.2.3.4/tcp/80"),
        (Endpoint("2001:db8::1", 0), "/ip6/2001:db8::1/tcp/0"),
    ],
)
def test_an_endpoint_is_an_address_and_back(endpoint: Endpoint, text: str) -> None:
    assert from_endpoint(endpoint) == parse(text)
    assert tcp_endpoint(parse(text)) == endpoint
    assert tcp_endpoint(parse(f"{text}/p2p/{PEER}")) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "/ip4/1.2.3.4/udp/80",
        "/ip4/1.2.3.4/tcp/80/ws",
        "/ip4/1.2.3.4",
        "/dns4/a.example/tcp/80",
        f"/ip4/1.2.3.4/tcp/80/p2p/{RELAY}/p2p-circuit",
    ],
)
def test_other_addresses_have_no_tcp_endpoint(text: str) -> None:
    assert tcp_endpoint(parse(text)) is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("/ip4/1.2.3.4/tcp/80", Place("tcp", Endpoint("1.2.3.4", 80))),
        ("/ip4/1.2.3.4/tcp/80/tls/sni/a.example/ws", Place("tcp", Endpoint("1.2.3.4", 80))),
        (f"/ip6/2a00::1/udp/4001/quic-v1/p2p/{PEER}", Place("udp", Endpoint("2a00::1", 4001))),
        (f"/ip4/1.2.3.4/tcp/80/p2p/{RELAY}/p2p-circuit", None),
        ("/dns4/a.example/tcp/80", None),
        ("/ip4/1.2.3.4", None),
    ],
)
def test_a_direct_address_leads_to_a_place(text: str, place: Place | None) -> None:
    assert place_of(parse(text)) == place


def test_an_endpoint_tells_what_it_is() -> None:
    assert str(Endpoint("::1", 1)) == "[::1]:1"
    assert str(Endpoint("1.2.3.4", 1)) == "1.2.3.4:1"
    assert Endpoint("::", 1).is_unspecified
    assert Endpoint("0.0.0.0", 1).is_unspecified
    assert not Endpoint("::1", 1).is_unspecified


def test_a_name_is_replaced_by_an_ip() -> None:
    named = parse(f"/dns/a.example/tcp/80/p2p/{PEER}")
    assert dns_name(named) == ("dns", "a.example")
    assert with_host(named, "1.2.3.4") == parse(f"/ip4/1.2.3.4/tcp/80/p2p/{PEER}")
    assert with_host(named, "::1") == parse(f"/ip6/::1/tcp/80/p2p/{PEER}")
    assert dns_name(parse("/ip4/1.2.3.4")) is None


def test_only_an_ip_address_has_an_ip() -> None:
    assert ip_of(parse("/ip4/1.2.3.4/tcp/1")) == ipaddress.ip_address("1.2.3.4")
    assert ip_of(parse("/dns/a.example/tcp/1")) is None


# ---- scope (A4; the table of the lines themselves is on the page) ------------------------


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("::ffff:192.168.0.1", "192.168.0.1"),
        ("2002:c0a8:1::", "192.168.0.1"),
        ("64:ff9b::192.168.0.1", "192.168.0.1"),
        ("2001:0:4136:e378:8000:63bf:3f57:fffe", "192.168.0.1"),
        ("2001:4860::8888", "2001:4860::8888"),
        ("192.168.0.1", "192.168.0.1"),
    ],
)
def test_a4_ipv4_is_recognised_in_ipv6_clothing(text: str, inside: str) -> None:
    assert unwrapped(ipaddress.ip_address(text)) == ipaddress.ip_address(inside)


@given(st.ip_addresses(v=4))
def test_a4_clothing_changes_no_scope(ip: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(0xFFFF_0000_0000 + int(ip))
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) + int(ip))
    sixtofour = ipaddress.IPv6Address((0x2002 << 112) + (int(ip) << 80))
    assert {scope_of_ip(wrapped) for wrapped in (mapped, nat64, sixtofour)} == {scope_of_ip(ip)}


@given(st.ip_addresses())
def test_a4_no_address_of_the_local_machine_or_network_is_public(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        assert scope_of_ip(ip) is not Scope.PUBLIC


def test_a4_names_have_a_scope_too() -> None:
    assert scope_of_name("LOCALHOST.") is Scope.LOOPBACK
    assert scope_of_name("a.localhost") is Scope.LOOPBACK
    assert scope_of_name("printer.local") is Scope.PRIVATE
    assert scope_of_name("notlocal") is Scope.PUBLIC
    assert scope(parse("/dns4/example.com/tcp/1")) is Scope.PUBLIC


def test_a4_what_begins_with_neither_ip_nor_name_cannot_be_routed() -> None:
    assert scope(parse(f"/p2p/{RELAY}/p2p-circuit")) is Scope.UNROUTABLE


def test_the_limit_of_bytes_is_that_of_the_page() -> None:
    assert MAX_ADDRESS_BYTES == 1024
