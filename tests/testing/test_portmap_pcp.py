"""PCP as RFC 6887 has it, over a real NAT of the simulation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Nat, NatKind
from p2pnet.testing.portmap.pcp import PcpServer
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import (
    ANN,
    BOB,
    NONCE,
    OTHER_NONCE,
    OUTSIDE,
    PREFER_FAILURE,
    TCP,
    UDP,
    PcpAnswer,
    inside_of,
    ip16,
    make_leases,
    make_nat,
    pcp_map,
    pcp_option,
    pcp_request,
    read_pcp,
)

(
    SUCCESS,
    UNSUPP_VERSION,
    NOT_AUTHORIZED,
    MALFORMED_REQUEST,
    UNSUPP_OPCODE,
    UNSUPP_OPTION,
    MALFORMED_OPTION,
    NETWORK_FAILURE,
    NO_RESOURCES,
    UNSUPP_PROTOCOL,
    USER_EX_QUOTA,
    CANNOT_PROVIDE_EXTERNAL,
    ADDRESS_MISMATCH,
) = range(13)
LONG, SHORT = 1_800, 30
SIX = "fd00::2"


class Router:
    def __init__(
        self,
        config: PortMapConfig | None = None,
        outside: str | None = OUTSIDE,
        nat: Nat | None = None,
    ) -> None:
        self.config = config or PortMapConfig()
        self.nat = nat or make_nat()
        self.leases = make_leases(self.nat, self.config, outside)
        self.server = PcpServer(self.leases, self.config)

    def ask(self, data: bytes, host: str = ANN, now: float = 0.0) -> PcpAnswer:
        return read_pcp(self.server.receive(data, Endpoint(host, 50_000), now))


def test_a_request_and_its_answer_are_as_the_rfc_draws_them() -> None:
    """Spelled out by hand from the figures of RFC 6887, sections 7.1, 7.2 and 11.1."""
    request = bytes.fromhex(
        "02010000 00000e10 00000000000000000000ffffc0a80102"  # version, MAP, 3600 s, client
        "000102030405060708090a0b 11000000 0fa1 0fa2"  # nonce, UDP, port 4001, suggests 4002
        "00000000000000000000ffff00000000"  # any IPv4 address
    )
    answer = Router().server.receive(request, Endpoint(ANN, 50_000), 5.0)
    assert answer == bytes.fromhex(
        "02810000 00000e10 00000005 000000000000000000000000"  # answer, success, epoch
        "000102030405060708090a0b 11000000 0fa1 0fa2"
        "00000000000000000000ffff0b000102"
    )


def test_a_stranger_gets_in_until_the_lifetime_is_over() -> None:
    router = Router()
    assert router.ask(pcp_map(4001, seconds=200)).seconds == 200
    assert inside_of(router.nat, 4001, now=199.9) == Endpoint(ANN, 4001)
    assert inside_of(router.nat, 4001, now=200.0) is None


@pytest.mark.parametrize(("protocol", "transport"), [(UDP, "udp"), (TCP, "tcp")])
def test_udp_and_tcp_can_be_mapped(protocol: int, transport: str) -> None:
    router = Router()
    assert router.ask(pcp_map(4001, protocol=protocol)).result == SUCCESS
    assert [forward.transport for forward in router.nat.mappings(0.0)] == [transport]


@pytest.mark.parametrize(("asked", "given"), [(1, 120), (500, 500), (0xFFFF_FFFF, 86_400)])
def test_lifetimes_are_kept_within_their_bounds(asked: int, given: int) -> None:
    assert Router().ask(pcp_map(4001, seconds=asked)).seconds == given


def test_announce_is_answered_with_the_epoch() -> None:
    answer = Router().ask(pcp_request(0, 0, ANN), now=9.5)
    assert answer == PcpAnswer(0, SUCCESS, 0, 9, bytes(12), b"")


def test_the_announcement_is_the_answer_to_announce() -> None:
    answer = read_pcp(Router().server.announcement(3.0))
    assert answer == PcpAnswer(0, SUCCESS, 0, 3, bytes(12), b"")


# ---- what is refused before it is looked at ----------------------------------------------


@pytest.mark.parametrize("version", [0, 1, 3, 255])
def test_another_version_is_answered_with_version_2(version: int) -> None:
    answer = Router().ask(bytes([version, 1]) + bytes(22))
    assert (answer.opcode, answer.result, answer.seconds) == (1, UNSUPP_VERSION, LONG)


def test_what_was_not_understood_is_copied_where_the_answer_has_reserved_bits() -> None:
    body = bytes(range(24))
    request = bytes([1, 1]) + body[2:]
    assert Router().ask(request).reserved == body[12:]
    assert Router().ask(b"\x02\x01" + body[2:] + b"odd").reserved == body[12:]


def test_a_short_request_of_another_version_is_padded() -> None:
    data = Router().server.receive(b"\0\0", Endpoint(ANN, 1), 0.0)
    assert data is not None
    assert len(data) == 24


@pytest.mark.parametrize("data", [b"", b"\x02", b"\x02\x81" + bytes(58)])
def test_answers_and_what_is_too_short_get_silence(data: bytes) -> None:
    assert Router().server.receive(data, Endpoint(ANN, 1), 0.0) is None


@pytest.mark.parametrize("length", [2, 20, 23, 61, 1104])
def test_a_request_of_a_wrong_length_is_malformed(length: int) -> None:
    data = (pcp_map(4001) + bytes(2000))[:length]
    assert (Router().ask(data).result, Router().ask(data).seconds) == (MALFORMED_REQUEST, LONG)


def test_a_map_request_without_all_of_its_payload_is_malformed() -> None:
    assert Router().ask(pcp_map(4001)[:-4]).result == MALFORMED_REQUEST


@pytest.mark.parametrize("opcode", [2, 3, 127])
def test_peer_and_unknown_opcodes_are_unsupported(opcode: int) -> None:
    request = pcp_request(opcode, 60, ANN, bytes(56))
    answer = Router().ask(request)
    assert (answer.opcode, answer.result, answer.seconds) == (opcode, UNSUPP_OPCODE, LONG)
    assert answer.rest == bytes(56)


def test_a_client_behind_another_nat_is_told_of_the_mismatch() -> None:
    answer = Router().ask(pcp_map(4001, client="10.0.0.7"))
    assert (answer.result, answer.seconds, answer.reserved) == (ADDRESS_MISMATCH, LONG, bytes(12))


def test_an_error_carries_a_copy_of_the_request() -> None:
    request = pcp_map(4001, protocol=132)
    answer = Router().ask(request)
    assert answer.result == UNSUPP_PROTOCOL
    assert answer.rest == request[24:]


# ---- options -----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [1, 3, 4, 127])
def test_mandatory_options_that_are_not_known_are_unsupported(code: int) -> None:
    answer = Router().ask(pcp_map(4001, options=pcp_option(code, bytes(16))))
    assert answer.result == UNSUPP_OPTION


def test_optional_options_are_ignored_and_not_repeated() -> None:
    answer = Router().ask(pcp_map(4001, options=pcp_option(128, b"abcde")))
    assert (answer.result, answer.options) == (SUCCESS, b"")


def test_announce_takes_no_mandatory_option() -> None:
    assert Router().ask(pcp_request(0, 0, ANN, PREFER_FAILURE)).result == UNSUPP_OPTION


@pytest.mark.parametrize(
    "options",
    [
        PREFER_FAILURE * 2,
        pcp_option(2, bytes(4)),
        bytes([128, 0, 0, 1]),
        bytes([128, 0, 255, 255]),
    ],
)
def test_options_of_a_wrong_length_or_number_are_malformed(options: bytes) -> None:
    answer = Router().ask(pcp_map(4001, outside=4001, options=options))
    assert answer.result == MALFORMED_OPTION


def test_prefer_failure_gets_the_port_or_an_error() -> None:
    router = Router()
    first = router.ask(pcp_map(4001, outside=4100, options=PREFER_FAILURE))
    assert (first.ports, first.options) == ((4001, 4100), PREFER_FAILURE)
    second = router.ask(pcp_map(4002, outside=4100, options=PREFER_FAILURE))
    assert (second.result, second.seconds) == (CANNOT_PROVIDE_EXTERNAL, SHORT)
    assert router.ask(pcp_map(4002, outside=4100)).ports == (4002, 4002)


def test_prefer_failure_fails_for_a_mapping_that_has_another_port() -> None:
    router = Router()
    router.ask(pcp_map(4001, outside=4100))
    answer = router.ask(pcp_map(4001, outside=4200, options=PREFER_FAILURE))
    assert answer.result == CANNOT_PROVIDE_EXTERNAL
    assert router.ask(pcp_map(4001, outside=4100, options=PREFER_FAILURE)).result == SUCCESS


def test_prefer_failure_fails_for_another_outside_address() -> None:
    answer = Router().ask(pcp_map(4001, outside=4100, address="11.0.1.99", options=PREFER_FAILURE))
    assert answer.result == CANNOT_PROVIDE_EXTERNAL
    ours = Router().ask(pcp_map(4001, outside=4100, address=OUTSIDE, options=PREFER_FAILURE))
    assert ours.result == SUCCESS


@pytest.mark.parametrize("address", ["::", "0.0.0.0"])
def test_prefer_failure_without_a_preference_is_malformed(address: str) -> None:
    answer = Router().ask(pcp_map(4001, address=address, options=PREFER_FAILURE))
    assert answer.result == MALFORMED_OPTION


def test_a_third_party_is_mapped_only_where_that_is_allowed() -> None:
    request = pcp_map(4001, options=pcp_option(1, ip16(BOB)))
    assert Router().ask(request).result == UNSUPP_OPTION
    router = Router(PortMapConfig(any_host=True))
    answer = router.ask(request)
    assert (answer.result, answer.options) == (SUCCESS, pcp_option(1, ip16(BOB)))
    assert inside_of(router.nat, 4001, now=1.0) == Endpoint(BOB, 4001)


def test_a_third_party_that_is_the_client_is_malformed() -> None:
    router = Router(PortMapConfig(any_host=True))
    request = pcp_map(4001, options=pcp_option(1, ip16(ANN)))
    assert router.ask(request).result == MALFORMED_REQUEST


# ---- renewing, deleting, nonces ----------------------------------------------------------


def test_asked_again_under_the_same_nonce_the_mapping_is_renewed() -> None:
    router = Router()
    router.ask(pcp_map(4001, outside=4100, seconds=200))
    again = router.ask(pcp_map(4001, outside=4200, seconds=200), now=100.0)
    assert again.ports == (4001, 4100)
    assert [lease.expires for lease in router.leases.live(100.0)] == [300.0]


@pytest.mark.parametrize("seconds", [0, 300])
def test_under_another_nonce_nothing_is_authorized(seconds: int) -> None:
    router = Router()
    router.ask(pcp_map(4001))
    answer = router.ask(pcp_map(4001, seconds=seconds, nonce=OTHER_NONCE))
    assert (answer.result, answer.seconds) == (NOT_AUTHORIZED, LONG)
    assert len(router.leases.live(0.0)) == 1


def test_lifetime_zero_deletes_and_deleting_nothing_succeeds_too() -> None:
    router = Router()
    router.ask(pcp_map(4001))
    for _ in range(2):
        answer = router.ask(pcp_map(4001, outside=4001, seconds=0))
        assert (answer.result, answer.seconds, answer.nonce) == (SUCCESS, 0, NONCE)
        assert not router.nat.mappings(0.0)


@pytest.mark.parametrize(
    ("protocol", "left"), [(UDP, [4003, 4004, 4005]), (TCP, [4001, 4002, 4004, 4005]),
                           (0, [4004, 4005])]
)  # fmt: skip
def test_port_zero_deletes_all_of_the_host_under_that_nonce(protocol: int, left: list[int]) -> None:
    router = Router()
    router.ask(pcp_map(4001))
    router.ask(pcp_map(4002))
    router.ask(pcp_map(4003, protocol=TCP))
    router.ask(pcp_map(4004, nonce=OTHER_NONCE))
    router.ask(pcp_map(4005, client=BOB), host=BOB)
    assert router.ask(pcp_map(0, protocol=protocol, seconds=0)).result == SUCCESS
    assert [lease.inside.port for lease in router.leases.live(0.0)] == left


@pytest.mark.parametrize(("protocol", "port"), [(0, 0), (0, 4001), (UDP, 0), (132, 4001)])
def test_all_protocols_all_ports_and_sctp_cannot_be_mapped(protocol: int, port: int) -> None:
    assert Router().ask(pcp_map(port, protocol=protocol)).result == UNSUPP_PROTOCOL


def test_sctp_cannot_be_deleted() -> None:
    assert Router().ask(pcp_map(1, protocol=132, seconds=0)).result == UNSUPP_PROTOCOL


# ---- what the router has no room for, or does not want -----------------------------------


@pytest.mark.parametrize(
    ("config", "result", "seconds"),
    [
        (PortMapConfig(max_leases=1), NO_RESOURCES, SHORT),
        (PortMapConfig(max_leases_a_host=1), USER_EX_QUOTA, SHORT),
        (PortMapConfig(refuses=True), NOT_AUTHORIZED, LONG),
    ],
)
def test_what_cannot_be_granted_says_why(config: PortMapConfig, result: int, seconds: int) -> None:
    router = Router(config)
    router.ask(pcp_map(4001))
    answer = router.ask(pcp_map(4002))
    assert (answer.result, answer.seconds) == (result, seconds)


def test_a_nat_without_room_has_no_resources() -> None:
    router = Router(nat=make_nat(NatKind(max_mappings=1)))
    assert router.ask(pcp_map(4001)).result == SUCCESS
    assert router.ask(pcp_map(4002)).result == NO_RESOURCES


def test_without_an_outside_address_the_network_has_failed() -> None:
    answer = Router(outside=None).ask(pcp_map(4001))
    assert (answer.result, answer.seconds) == (NETWORK_FAILURE, SHORT)


def test_the_address_can_be_a_lie() -> None:
    router = Router(PortMapConfig(reported_address="10.9.9.9"))
    assert router.ask(pcp_map(4001)).address == "10.9.9.9"


# ---- IPv6 --------------------------------------------------------------------------------


def test_an_ipv6_client_gets_its_own_port_opened() -> None:
    router = Router(outside=None, nat=make_nat(NatKind(translates=False)))
    request = pcp_map(80, outside=4100, client=SIX, seconds=200)
    answer = router.ask(request, host=SIX)
    assert (answer.result, answer.ports, answer.address) == (SUCCESS, (80, 80), SIX)
    (lease,) = router.leases.live(0.0)
    assert lease.outside == Endpoint(SIX, 80)
    router.ask(pcp_map(80, client=SIX, seconds=0), host=SIX)
    assert not router.nat.mappings(0.0)


def test_two_ipv6_hosts_may_have_the_same_port_opened() -> None:
    router = Router()
    for host in (SIX, "fd00::3"):
        assert router.ask(pcp_map(4001, client=host), host=host).ports == (4001, 4001)
    router.ask(pcp_map(4001, client=SIX, seconds=0), host=SIX)
    assert [forward.inside.host for forward in router.nat.mappings(0.0)] == ["fd00::3"]


def test_an_ipv6_client_that_prefers_failure_gets_no_other_port() -> None:
    answer = Router().ask(pcp_map(4001, outside=4002, client=SIX, options=PREFER_FAILURE), host=SIX)
    assert answer.result == CANNOT_PROVIDE_EXTERNAL


# ---- garbage -----------------------------------------------------------------------------

GARBAGE = st.one_of(
    st.binary(max_size=80),
    st.builds(
        lambda start, rest: start + rest,
        st.sampled_from([pcp_request(op, 60, ANN) for op in range(4)] + [pcp_map(4001)]),
        st.binary(max_size=80).map(lambda data: data[: len(data) // 4 * 4]),
    ),
    st.binary(min_size=1101, max_size=1200),
)


@given(GARBAGE, st.booleans())
def test_garbage_gets_an_answer_of_version_2_or_silence(data: bytes, any_host: bool) -> None:
    router = Router(PortMapConfig(any_host=any_host))
    answer = router.server.receive(data, Endpoint(ANN, 1), 0.0)
    if len(data) < 2 or data[1] & 0x80:
        assert answer is None
    else:
        assert read_pcp(answer).opcode == data[1]
