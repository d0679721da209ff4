"""NAT-PMP as RFC 6886 has it, over a real NAT of the simulation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Nat
from p2pnet.testing.portmap.leases import Wish
from p2pnet.testing.portmap.natpmp import NatPmpServer
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import (
    ANN,
    BOB,
    OUTSIDE,
    PmpAnswer,
    inside_of,
    make_leases,
    make_nat,
    pmp_map,
    read_pmp,
)

UDP, TCP = 1, 2
UNAUTHORIZED, NO_NETWORK, NO_RESOURCES, NO_OPCODE = 2, 3, 4, 5


class Router:
    def __init__(self, config: PortMapConfig | None = None, outside: str | None = OUTSIDE) -> None:
        self.config = config or PortMapConfig()
        self.nat: Nat = make_nat()
        self.leases = make_leases(self.nat, self.config, outside)
        self.server = NatPmpServer(self.leases, self.config)

    def ask(self, data: bytes, host: str = ANN, now: float = 0.0) -> PmpAnswer:
        return read_pmp(self.server.receive(data, Endpoint(host, 50_000), now))

    def mute(self, data: bytes, host: str = ANN) -> bool:
        return self.server.receive(data, Endpoint(host, 50_000), 0.0) is None


def test_the_address_is_told_with_the_seconds_since_the_epoch() -> None:
    assert Router().ask(b"\0\0", now=7.9) == PmpAnswer(128, 0, 7, address=OUTSIDE)


def test_without_an_outside_address_the_network_has_failed() -> None:
    router = Router(outside=None)
    assert router.ask(b"\0\0") == PmpAnswer(128, NO_NETWORK, 0, address="0.0.0.0")
    assert router.ask(pmp_map(UDP, 4001, 0, 60)) == PmpAnswer(129, NO_NETWORK, 0, 4001, 0, 0)


@pytest.mark.parametrize(("version", "opcode"), [(1, 0), (2, 1), (255, 2)])
def test_another_version_is_answered_with_what_is_spoken(version: int, opcode: int) -> None:
    answer = Router().ask(bytes([version, opcode]) + bytes(58))
    assert answer == PmpAnswer(128 + opcode, 1, 0)


def test_an_unknown_opcode_is_unsupported() -> None:
    assert Router().ask(b"\0\x03") == PmpAnswer(131, NO_OPCODE, 0)


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\x80", b"\0\x81" + bytes(14), pmp_map(UDP, 1, 1, 1)[:-1]]
)
def test_answers_and_what_is_too_short_get_silence(data: bytes) -> None:
    assert Router().mute(data)


def test_ipv6_gets_silence() -> None:
    assert Router().mute(b"\0\0", host="fd00::2")


@pytest.mark.parametrize(("opcode", "transport"), [(UDP, "udp"), (TCP, "tcp")])
def test_a_mapping_is_granted_as_asked(opcode: int, transport: str) -> None:
    router = Router()
    answer = router.ask(pmp_map(opcode, 4001, 4100, 3600))
    assert answer == PmpAnswer(128 + opcode, 0, 0, 4001, 4100, 3600)
    (forward,) = router.nat.mappings(0.0)
    assert forward.transport == transport
    assert forward.inside == Endpoint(ANN, 4001)
    assert forward.outside == Endpoint(OUTSIDE, 4100)
    assert forward.expires == 3600


def test_a_stranger_gets_in_until_the_lifetime_is_over() -> None:
    router = Router()
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    assert inside_of(router.nat, 4001, now=59.9) == Endpoint(ANN, 4001)
    assert inside_of(router.nat, 4001, now=60.0) is None
    assert not router.leases.live(60.0)


def test_without_a_suggestion_the_inside_port_is_tried_first() -> None:
    assert Router().ask(pmp_map(UDP, 4001, 0, 60)).outside == 4001


def test_a_port_below_the_first_is_replaced() -> None:
    assert Router().ask(pmp_map(UDP, 80, 80, 60)).outside == 1024


def test_a_taken_port_is_replaced_by_another() -> None:
    router = Router()
    assert router.ask(pmp_map(UDP, 4001, 4001, 60)).outside == 4001
    assert router.ask(pmp_map(UDP, 4001, 4001, 60), host=BOB).outside == 4002
    assert inside_of(router.nat, 4002, now=1.0) == Endpoint(BOB, 4001)


def test_the_companion_port_of_another_host_is_not_given() -> None:
    router = Router()
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    assert router.ask(pmp_map(TCP, 4001, 4001, 60), host=BOB).outside == 4002
    assert router.ask(pmp_map(TCP, 4001, 4001, 60)).outside == 4001


def test_a_port_of_a_flow_is_not_given() -> None:
    router = Router()
    assert router.nat.map_port("udp", Endpoint(BOB, 9), 4001, seconds=None, now=0.0)
    assert router.ask(pmp_map(UDP, 4001, 4001, 60)).outside == 4002


def test_asked_again_the_same_mapping_is_renewed() -> None:
    router = Router()
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    assert router.ask(pmp_map(UDP, 4001, 4500, 90), now=30.0).outside == 4001
    (lease,) = router.leases.live(30.0)
    assert lease.expires == 120
    assert inside_of(router.nat, 4001, now=119.0) == Endpoint(ANN, 4001)


def test_a_lifetime_is_cut_to_the_longest() -> None:
    assert Router().ask(pmp_map(UDP, 4001, 0, 0xFFFF_FFFF)).seconds == 86_400


def test_lifetime_zero_deletes_and_deleting_nothing_succeeds_too() -> None:
    router = Router()
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    for _ in range(2):
        answer = router.ask(pmp_map(UDP, 4001, 4001, 0))
        assert answer == PmpAnswer(129, 0, 0, 4001, 0, 0)
        assert not router.nat.mappings(0.0)


def test_a_host_deletes_no_mapping_of_another() -> None:
    router = Router()
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    assert router.ask(pmp_map(UDP, 4001, 4001, 0), host=BOB).result == 0
    assert len(router.leases.live(0.0)) == 1


def test_inside_port_zero_deletes_all_of_the_host_in_that_transport() -> None:
    router = Router()
    for port in (4001, 4002):
        router.ask(pmp_map(UDP, port, 0, 60))
    router.ask(pmp_map(TCP, 4003, 0, 60))
    router.ask(pmp_map(UDP, 4004, 0, 60), host=BOB)
    assert router.ask(pmp_map(UDP, 0, 0, 0)) == PmpAnswer(129, 0, 0, 0, 0, 0)
    assert [lease.inside.port for lease in router.leases.live(0.0)] == [4003, 4004]


def test_inside_port_zero_cannot_be_mapped() -> None:
    assert Router().ask(pmp_map(UDP, 0, 4001, 60)).result == UNAUTHORIZED


def upnp_lease(router: Router, seconds: int | None) -> None:
    router.leases.grant_port(
        Wish(
            transport="udp",
            inside=Endpoint(ANN, 4001),
            port=5000,
            seconds=seconds,
            protocol="upnp",
        ),
        0.0,
    )


def test_a_mapping_made_by_upnp_is_shared_and_not_to_be_deleted() -> None:
    router = Router()
    upnp_lease(router, seconds=60)
    assert router.ask(pmp_map(UDP, 4001, 4001, 90)).outside == 5000
    assert router.ask(pmp_map(UDP, 4001, 4001, 0)).result == UNAUTHORIZED
    assert router.ask(pmp_map(UDP, 0, 0, 0)).result == 0
    (lease,) = router.leases.live(0.0)
    assert (lease.protocol, lease.expires) == ("upnp", 90)


def test_a_shared_mapping_without_end_stays_so() -> None:
    router = Router()
    upnp_lease(router, seconds=None)
    assert router.ask(pmp_map(UDP, 4001, 4001, 90)).seconds == 90
    (lease,) = router.leases.live(1e6)
    assert lease.expires is None


def test_a_refusing_router_authorizes_nothing_and_tells_its_address() -> None:
    router = Router(PortMapConfig(refuses=True))
    assert router.ask(pmp_map(UDP, 4001, 4002, 60)).result == UNAUTHORIZED
    assert not router.nat.mappings(0.0)
    assert router.ask(b"\0\0").address == OUTSIDE


@pytest.mark.parametrize(
    "config", [PortMapConfig(max_leases=2), PortMapConfig(max_leases_a_host=2)]
)
def test_a_full_table_is_out_of_resources_until_a_mapping_ends(config: PortMapConfig) -> None:
    router = Router(config)
    for port in (4001, 4002):
        assert router.ask(pmp_map(UDP, port, 0, 60)).result == 0
    assert router.ask(pmp_map(UDP, 4003, 0, 60)).result == NO_RESOURCES
    assert router.ask(pmp_map(UDP, 4002, 0, 60)).result == 0, "renewing needs no room"
    assert router.ask(pmp_map(UDP, 4003, 0, 60), now=60.0).result == 0


def test_a_router_that_gives_no_other_port_is_out_of_resources() -> None:
    router = Router(PortMapConfig(max_port_tries=1))
    router.ask(pmp_map(UDP, 4001, 4001, 60))
    assert router.ask(pmp_map(UDP, 4001, 4001, 60), host=BOB).result == NO_RESOURCES


def test_the_address_can_be_a_lie() -> None:
    router = Router(PortMapConfig(reported_address="10.9.9.9"))
    assert router.ask(b"\0\0").address == "10.9.9.9"


def test_the_announcement_is_the_answer_about_the_address() -> None:
    router = Router()
    assert read_pmp(router.server.announcement(3.0)) == PmpAnswer(128, 0, 3, address=OUTSIDE)


@given(st.binary(max_size=40) | st.builds(lambda op, rest: bytes([0, op]) + rest,
       st.integers(0, 3), st.binary(max_size=20)))  # fmt: skip
def test_garbage_gets_an_answer_of_a_known_length_or_silence(data: bytes) -> None:
    answer = Router().server.receive(data, Endpoint(ANN, 1), 0.0)
    assert answer is None or len(answer) in (8, 12, 16)
    if answer is not None:
        assert answer[0] == 0
        assert answer[1] == 128 + data[1]
