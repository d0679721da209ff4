"""All protocols of a router together: its ports, one table, reboots, new addresses."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.nat import Nat
from p2pnet.testing.portmap.router_service import ANNOUNCED_AFTER, Outgoing, PortMapping
from p2pnet.testing.portmap.settings import PROTOCOLS, PortMapConfig, Protocol
from tests.testing.portmap_client import (
    ANN,
    BOB,
    NONCE,
    OUTSIDE,
    ROUTER,
    at_port,
    exchange,
    inside_of,
    make_nat,
    mapping,
    pcp_map,
    pcp_request,
    pmp_map,
    post,
    read_pcp,
    read_pmp,
    search_for,
)

SOURCE = Endpoint(ANN, 50_000)
ELSEWHERE = "11.0.1.3"


class Router:
    def __init__(
        self,
        *protocols: Protocol,
        config: PortMapConfig | None = None,
        outside: str = OUTSIDE,
    ) -> None:
        self.nat: Nat = make_nat()
        self.service = PortMapping(
            self.nat,
            inside_address=ROUTER,
            outside_address=outside,
            now=0.0,
            protocols=protocols or PROTOCOLS,
            config=config,
        )

    def ask(self, data: bytes, now: float = 0.0) -> bytes:
        (answer,) = self.service.receive(5351, data, SOURCE, now)
        assert (answer.local_port, answer.destination) == (5351, SOURCE)
        return answer.data


def test_the_router_listens_where_its_protocols_are_asked() -> None:
    every = Router().service
    assert every.udp_ports == (5351, 1900)
    assert every.groups == (Endpoint("239.255.255.250", 1900),)
    assert every.http_endpoint == Endpoint(ROUTER, 5_000)
    pcp = Router("pcp").service
    assert (pcp.udp_ports, pcp.groups, pcp.http_endpoint) == ((5351,), (), None)
    assert Router("upnp").service.udp_ports == (1900,)


def test_port_5351_answers_each_version_in_kind() -> None:
    router = Router()
    assert read_pmp(router.ask(b"\0\0")).address == OUTSIDE
    assert read_pcp(router.ask(pcp_request(0, 0, ANN))).result == 0
    assert read_pcp(router.ask(b"\x01\x01" + bytes(22))).result == 1


def test_where_only_pcp_is_spoken_nat_pmp_is_told_so_in_pcp() -> None:
    assert read_pcp(Router("pcp").ask(b"\0\0")).result == 1


def test_where_only_nat_pmp_is_spoken_pcp_is_told_so_in_nat_pmp() -> None:
    answer = read_pmp(Router("nat-pmp").ask(pcp_map(4001)))
    assert (answer.opcode, answer.result) == (129, 1)


def test_what_is_not_spoken_gets_silence() -> None:
    assert not Router("upnp").service.receive(5351, b"\0\0", SOURCE, 0.0)
    assert not Router("pcp").service.receive(1900, search_for("ssdp:all"), SOURCE, 0.0)
    assert not Router().service.receive(53, b"\0\0", SOURCE, 0.0)
    with pytest.raises(ValueError, match="does not speak UPnP"):
        Router("pcp").service.connect(SOURCE)


def test_a_search_is_answered_from_port_1900() -> None:
    answers = Router().service.receive(1900, search_for("ssdp:all"), SOURCE, 0.0)
    assert len(answers) == 10
    assert {(answer.local_port, answer.destination) for answer in answers} == {(1900, SOURCE)}


def test_the_protocols_share_one_table() -> None:
    router = Router()
    assert read_pcp(router.ask(pcp_map(4001, outside=5001))).ports == (4001, 5001)
    assert read_pmp(router.ask(pmp_map(1, 4001, 0, 60))).outside == 5001
    connection = router.service.connect(Endpoint(BOB, 1))
    assert exchange(connection, post("AddPortMapping", mapping(5001, 9, BOB))).error == 718
    entry = exchange(
        router.service.connect(SOURCE), post("GetSpecificPortMappingEntry", at_port(5001))
    )
    assert entry.values["NewPortMappingDescription"] == "PCP"
    (lease,) = router.service.leases(0.0)
    assert (lease.protocol, lease.nonce, lease.expires) == ("pcp", NONCE, 3600)


def test_a_mapping_that_the_gate_lost_is_gone() -> None:
    router = Router()
    router.ask(pmp_map(1, 4001, 0, 60))
    router.nat.reset()
    assert not router.service.leases(0.0)


def reboot(router: Router, now: float) -> tuple[Outgoing, ...]:
    router.nat.reset()
    return router.service.restart(now)


def test_a_reboot_loses_all_begins_the_epoch_anew_and_is_told_to_all() -> None:
    router = Router()
    router.ask(pmp_map(1, 4001, 0, 60))
    sent = reboot(router, now=500.0)
    assert not router.service.leases(500.0)
    assert read_pmp(router.ask(b"\0\0", now=507.0)).epoch == 7
    assert read_pcp(router.ask(pcp_request(0, 0, ANN), now=507.0)).epoch == 7
    searchers, hosts = Endpoint("239.255.255.250", 1900), Endpoint("224.0.0.1", 5350)
    assert [(out.local_port, out.destination) for out in sent] == (
        [(1900, searchers)] * 10 + [(5351, hosts)] * 2
    )
    assert read_pmp(sent[-2].data).address == OUTSIDE
    assert read_pcp(sent[-1].data).epoch == 0
    again = router.service.announcements(500.0 + ANNOUNCED_AFTER[-1])
    assert [read_pmp(again[0].data).epoch, read_pcp(again[1].data).epoch] == [127, 127]


def test_a_reboot_is_told_by_the_protocols_that_are_spoken() -> None:
    assert [out.local_port for out in reboot(Router("pcp"), now=1.0)] == [5351]
    assert [out.local_port for out in reboot(Router("upnp"), now=1.0)] == [1900] * 10


def test_the_announcements_are_as_far_apart_as_the_rfc_says() -> None:
    pauses = [later - at for at, later in pairwise(ANNOUNCED_AFTER)]
    assert len(ANNOUNCED_AFTER) == 10
    assert pauses == [0.25 * 2**step for step in range(9)]


def test_a_router_that_keeps_its_epoch_hides_its_reboots() -> None:
    router = Router(config=PortMapConfig(keeps_epoch=True))
    reboot(router, now=500.0)
    assert read_pmp(router.ask(b"\0\0", now=507.0)).epoch == 507


def test_a_new_address_loses_all_and_is_told_to_all() -> None:
    router = Router()
    router.ask(pmp_map(1, 4001, 0, 60))
    router.nat.set_outside([ELSEWHERE])
    sent = router.service.renumber(ELSEWHERE, 500.0)
    assert [read_pmp(out.data).address for out in sent[:1]] == [ELSEWHERE]
    assert len(sent) == 2
    assert not router.service.leases(500.0)
    assert read_pcp(router.ask(pcp_map(4001), now=501.0)).address == ELSEWHERE


def test_a_lost_uplink_is_told_and_nothing_is_mapped_until_it_is_back() -> None:
    router = Router()
    router.nat.set_outside([])
    sent = router.service.renumber(None, 10.0)
    assert read_pmp(sent[0].data).result == 3
    assert read_pmp(router.ask(pmp_map(1, 4001, 0, 60), now=11.0)).result == 3
    router.nat.set_outside([OUTSIDE])
    router.service.renumber(OUTSIDE, 20.0)
    assert read_pmp(router.ask(pmp_map(1, 4001, 0, 60), now=21.0)).result == 0


def test_behind_another_nat_a_private_address_is_told() -> None:
    """Double NAT: what is mapped is of no use, and the address says so."""
    router = Router(outside="192.168.178.20")
    assert read_pmp(router.ask(b"\0\0")).address == "192.168.178.20"
    connection = router.service.connect(SOURCE)
    answer = exchange(connection, post("GetExternalIPAddress", {}))
    assert answer.values == {"NewExternalIPAddress": "192.168.178.20"}


def test_a_lie_about_the_address_changes_nothing_of_the_mapping() -> None:
    router = Router(config=PortMapConfig(reported_address="11.9.9.9"))
    assert read_pcp(router.ask(pcp_map(4001))).address == "11.9.9.9"
    assert inside_of(router.nat, 4001, now=1.0) == Endpoint(ANN, 4001)


@given(st.lists(st.tuples(st.sampled_from([5351, 1900]), st.binary(max_size=90)), max_size=6))
def test_garbage_never_gets_more_than_one_answer(datagrams: list[tuple[int, bytes]]) -> None:
    service = Router().service
    for port, data in datagrams:
        assert len(service.receive(port, data, SOURCE, 0.0)) <= 1
