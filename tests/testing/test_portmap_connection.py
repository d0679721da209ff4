"""The UPnP service that maps ports: its actions, over a real NAT of the simulation."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.portmap.leases import Wish
from p2pnet.testing.portmap.settings import PortMapConfig
from tests.testing.portmap_client import (
    ANN,
    BOB,
    Gateway,
    HttpAnswer,
    at_port,
    inside_of,
    mapping,
)

SECOND = PortMapConfig(igd_version=2)


# ---- called: the connection --------------------------------------------------------------


def test_the_connection_tells_its_state() -> None:
    status = Gateway().call("GetStatusInfo", now=99.9).values
    assert (status["NewConnectionStatus"], status["NewUptime"]) == ("Connected", "99")
    nat = Gateway().call("GetNATRSIPStatus").values
    assert nat == {"NewRSIPAvailable": "0", "NewNATEnabled": "1"}


def test_without_an_outside_address_it_is_disconnected() -> None:
    router = Gateway(outside=None)
    assert router.call("GetStatusInfo").values["NewConnectionStatus"] == "Disconnected"
    assert router.call("GetExternalIPAddress").error == 501
    assert router.call("AddPortMapping", mapping(5001, 4001)).error == 501


def test_the_address_can_be_a_lie() -> None:
    router = Gateway(PortMapConfig(reported_address="10.9.9.9"))
    assert router.call("GetExternalIPAddress").values == {"NewExternalIPAddress": "10.9.9.9"}


# ---- called: mappings --------------------------------------------------------------------


def test_a_mapping_lets_strangers_in_until_its_lease_is_over() -> None:
    router = Gateway()
    assert router.call("AddPortMapping", mapping(5001, 4001, seconds=60)).status == 200
    assert inside_of(router.nat, 5001, now=59.9) == Endpoint(ANN, 4001)
    assert inside_of(router.nat, 5001, now=60.0) is None
    entry = router.call("GetSpecificPortMappingEntry", at_port(5001), now=60.0)
    assert entry.error == 714


def test_a_mapping_without_lease_stays_for_ever() -> None:
    router = Gateway()
    router.call("AddPortMapping", mapping(5001, 4001))
    assert inside_of(router.nat, 5001, now=1e9) == Endpoint(ANN, 4001)
    entry = router.call("GetSpecificPortMappingEntry", at_port(5001), now=1e9)
    assert entry.values["NewLeaseDuration"] == "0"


@pytest.mark.parametrize(("asked", "given"), [(0, 604_800), (60, 60), (9_999_999, 604_800)])
def test_version_2_knows_no_lease_beyond_a_week(asked: int, given: int) -> None:
    router = Gateway(SECOND)
    router.call("AddPortMapping", mapping(5001, 4001, seconds=asked))
    entry = router.call("GetSpecificPortMappingEntry", at_port(5001))
    assert entry.values["NewLeaseDuration"] == str(given)


def test_entries_are_told_one_by_one_with_what_is_left_of_their_leases() -> None:
    router = Gateway()
    router.call("AddPortMapping", mapping(5001, 4001, seconds=60, description="a &lt; b"))
    router.call("AddPortMapping", mapping(5001, 4002, protocol="TCP"))
    first = router.call("GetGenericPortMappingEntry", {"NewPortMappingIndex": "0"}, now=10.5)
    assert first.values == {
        "NewRemoteHost": "",
        "NewExternalPort": "5001",
        "NewProtocol": "UDP",
        "NewInternalPort": "4001",
        "NewInternalClient": ANN,
        "NewEnabled": "1",
        "NewPortMappingDescription": "a < b",
        "NewLeaseDuration": "50",
    }
    second = router.call("GetGenericPortMappingEntry", {"NewPortMappingIndex": "1"})
    assert (second.values["NewProtocol"], second.values["NewLeaseDuration"]) == ("TCP", "0")
    third = router.call("GetGenericPortMappingEntry", {"NewPortMappingIndex": "2"})
    assert third.error == 713


def test_the_same_host_may_move_its_mapping_to_another_inside_port() -> None:
    router = Gateway()
    router.call("AddPortMapping", mapping(5001, 4001))
    assert router.call("AddPortMapping", mapping(5001, 4002)).status == 200
    assert inside_of(router.nat, 5001, now=0.0) == Endpoint(ANN, 4002)
    assert len(router.leases.live(0.0)) == 1


def test_the_same_mapping_again_renews_its_lease() -> None:
    router = Gateway()
    router.call("AddPortMapping", mapping(5001, 4001, seconds=60))
    router.call("AddPortMapping", mapping(5001, 4001, seconds=60), now=50.0)
    assert inside_of(router.nat, 5001, now=109.0) == Endpoint(ANN, 4001)


def test_one_inside_port_may_have_several_outside_ports() -> None:
    router = Gateway()
    for port in (5001, 5002):
        assert router.call("AddPortMapping", mapping(port, 4001)).status == 200
        assert inside_of(router.nat, port, now=0.0) == Endpoint(ANN, 4001)


def test_the_port_of_another_host_is_a_conflict() -> None:
    for config in (PortMapConfig(), SECOND):
        router = Gateway(config)
        router.call("AddPortMapping", mapping(5001, 4001))
        assert router.call("AddPortMapping", mapping(5001, 4001, BOB), BOB).error == 718
        assert inside_of(router.nat, 5001, now=0.0) == Endpoint(ANN, 4001)


@pytest.mark.parametrize(("config", "error"), [(PortMapConfig(), 718), (SECOND, 729)])
def test_version_2_tells_apart_what_another_mechanism_holds(
    config: PortMapConfig, error: int
) -> None:
    router = Gateway(config)
    wish = Wish(transport="udp", inside=Endpoint(BOB, 1), port=5001, seconds=60, protocol="nat-pmp")
    router.leases.grant_endpoint(wish, 0.0)
    router.nat.map_port("udp", Endpoint(BOB, 2), 5002, seconds=None, now=0.0)
    for port in (5001, 5002):
        assert router.call("AddPortMapping", mapping(port, 4001)).error == error


def test_version_2_finds_another_port_if_any_will_do() -> None:
    router = Gateway(SECOND)
    reserved = [
        router.call("AddAnyPortMapping", mapping(outside, 4001, host), host).values
        for outside, host in [(5001, ANN), (5001, BOB), (0, BOB), (5001, ANN)]
    ]
    assert [values["NewReservedPort"] for values in reserved] == ["5001", "4001", "4002", "5001"]


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"NewRemoteHost": "11.0.0.1"}, 726),
        ({"NewRemoteHost": "*"}, 0),
        ({"NewExternalPort": "0"}, 716),
        ({"NewExternalPort": "65536"}, 402),
        ({"NewExternalPort": "-1"}, 402),
        ({"NewExternalPort": ""}, 402),
        ({"NewExternalPort": "\u0664"}, 402),
        ({"NewExternalPort": "9" * 5000}, 402),
        ({"NewExternalPort": " 5001 "}, 0),
        ({"NewExternalPort": "80"}, 606),
        ({"NewProtocol": "SCTP"}, 402),
        ({"NewProtocol": "udp"}, 0),
        ({"NewInternalPort": "0"}, 402),
        ({"NewInternalClient": ""}, 402),
        ({"NewInternalClient": "fd00::2"}, 402),
        ({"NewInternalClient": "host"}, 402),
        ({"NewInternalClient": BOB}, 606),
        ({"NewEnabled": "0"}, 501),
        ({"NewEnabled": "perhaps"}, 402),
        ({"NewEnabled": "True"}, 0),
        ({"NewPortMappingDescription": "x" * 256}, 0),
        ({"NewPortMappingDescription": "x" * 257}, 605),
        ({"NewLeaseDuration": "4294967295"}, 0),
        ({"NewLeaseDuration": "4294967296"}, 402),
    ],
)
def test_each_argument_is_looked_at(changed: dict[str, str], error: int) -> None:
    router = Gateway()
    answer = router.call("AddPortMapping", mapping(5001, 4001) | changed)
    assert answer.error == error
    assert len(router.leases.live(0.0)) == (0 if error else 1)


def test_version_2_has_a_code_of_its_own_for_inside_port_zero() -> None:
    assert Gateway(SECOND).call("AddPortMapping", mapping(5001, 0)).error == 732


def test_a_mapping_for_another_host_is_made_only_where_that_is_allowed() -> None:
    router = Gateway(PortMapConfig(any_host=True))
    assert router.call("AddPortMapping", mapping(5001, 4001, BOB)).status == 200
    assert inside_of(router.nat, 5001, now=0.0) == Endpoint(BOB, 4001)
    assert router.call("DeletePortMapping", at_port(5001)).status == 200


def test_a_mapping_is_deleted_by_its_host_once() -> None:
    router = Gateway()
    router.call("AddPortMapping", mapping(5001, 4001))
    assert router.call("DeletePortMapping", at_port(5001), BOB).error == 606
    assert router.call("DeletePortMapping", at_port(5001, "TCP")).error == 714
    assert router.call("DeletePortMapping", at_port(5001)).status == 200
    assert inside_of(router.nat, 5001, now=0.0) is None
    assert router.call("DeletePortMapping", at_port(5001)).error == 714


def in_range(first: int, last: int, *, manage: int = 0, count: int | None = None) -> dict[str, str]:
    found = {
        "NewStartPort": str(first),
        "NewEndPort": str(last),
        "NewProtocol": "UDP",
        "NewManage": str(manage),
    }
    return found | ({} if count is None else {"NewNumberOfPorts": str(count)})


def crowded(config: PortMapConfig) -> Gateway:
    router = Gateway(config)
    for port in (5003, 5001, 5002):
        router.call("AddPortMapping", mapping(port, 4001, description="x &lt; y"))
    router.call("AddPortMapping", mapping(5004, 4001, BOB), BOB)
    return router


def listed(answer: HttpAnswer) -> list[str]:
    port_list = ElementTree.fromstring(answer.values["NewPortListing"])
    name = "{urn:schemas-upnp-org:gw:WANIPConnection}NewExternalPort"
    return [port.text or "" for port in port_list.iter(name)]


def test_version_2_lists_the_mappings_of_the_host_in_a_range() -> None:
    router = crowded(SECOND)
    answer = router.call("GetListOfPortMappings", in_range(5001, 5009, count=0))
    assert listed(answer) == ["5001", "5002", "5003"]
    assert "<p:NewDescription>x &lt; y</p:NewDescription>" in answer.values["NewPortListing"]
    some = router.call("GetListOfPortMappings", in_range(5002, 5009, count=1, manage=1))
    assert listed(some) == ["5002"]
    assert router.call("GetListOfPortMappings", in_range(1, 9, count=1)).error == 730
    assert router.call("GetListOfPortMappings", in_range(9, 1, count=1)).error == 733


def test_version_2_deletes_the_mappings_of_the_host_in_a_range() -> None:
    router = crowded(SECOND)
    assert router.call("DeletePortMappingRange", in_range(5002, 5009)).status == 200
    assert [lease.outside.port for lease in router.leases.live(0.0)] == [5001, 5004]
    assert router.call("DeletePortMappingRange", in_range(5002, 5009)).error == 730


def test_who_may_map_for_others_may_list_and_delete_theirs() -> None:
    router = crowded(PortMapConfig(igd_version=2, any_host=True))
    everything = router.call("GetListOfPortMappings", in_range(1, 65_535, count=0, manage=1))
    assert listed(everything) == ["5001", "5002", "5003", "5004"]
    own = router.call("GetListOfPortMappings", in_range(1, 65_535, count=0, manage=0))
    assert listed(own) == ["5001", "5002", "5003"]


def test_who_may_not_map_for_others_sees_none_of_theirs() -> None:
    found = crowded(SECOND).call("GetListOfPortMappings", in_range(1, 65_535, count=0, manage=1))
    assert listed(found) == ["5001", "5002", "5003"]


# ---- the faults of real routers ----------------------------------------------------------


def test_a_router_with_permanent_leases_only_takes_no_other() -> None:
    router = Gateway(PortMapConfig(only_permanent=True))
    assert router.call("AddPortMapping", mapping(5001, 4001, seconds=60)).error == 725
    assert router.call("AddPortMapping", mapping(5001, 4001)).status == 200
    assert [lease.expires for lease in router.leases.live(0.0)] == [None]


def test_a_refusing_router_authorizes_nothing() -> None:
    for config in (PortMapConfig(refuses=True), PortMapConfig(refuses=True, igd_version=2)):
        router = Gateway(config)
        assert router.call("AddPortMapping", mapping(5001, 4001)).error == 606
        assert not router.nat.mappings(0.0)


@pytest.mark.parametrize(("version", "error"), [(1, 501), (2, 728)])
def test_a_full_router_maps_no_more_until_something_is_deleted(version: int, error: int) -> None:
    router = Gateway(PortMapConfig(igd_version=2 if version == 2 else 1, max_leases=1))
    router.call("AddPortMapping", mapping(5001, 4001))
    assert router.call("AddPortMapping", mapping(5002, 4002)).error == error
    assert router.call("AddPortMapping", mapping(5001, 4003)).status == 200, "in its place"
    router.call("DeletePortMapping", at_port(5001))
    assert router.call("AddPortMapping", mapping(5002, 4002)).status == 200


def test_a_full_router_has_no_port_that_would_do() -> None:
    router = Gateway(PortMapConfig(igd_version=2, max_leases=1))
    router.call("AddPortMapping", mapping(5001, 4001, BOB), BOB)
    assert router.call("AddAnyPortMapping", mapping(5002, 4002)).error == 728


# ---- garbage ---------------------------------------------------------------------------

IN_RANGE = in_range(1, 9999, count=0) | {"NewPortMappingIndex": "0"}
ARGUMENTS = st.dictionaries(
    st.sampled_from([*mapping(1, 1), *IN_RANGE]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="<&\ufffe\uffff"))
    | st.integers(-1, 70_000).map(str)
    | st.sampled_from(["TCP", "UDP", ANN, "", "1"]),
)


ACTIONS = (
    "AddPortMapping",
    "AddAnyPortMapping",
    "DeletePortMapping",
    "DeletePortMappingRange",
    "GetListOfPortMappings",
    "GetGenericPortMappingEntry",
    "GetSpecificPortMappingEntry",
)
KNOWN_ERRORS = (402, 501, 605, 606, 713, 714, 716, 718, 726, 728, 729, 730, 732, 733)


@given(st.sampled_from(ACTIONS), ARGUMENTS)
def test_whatever_the_arguments_there_is_an_answer(action: str, arguments: dict[str, str]) -> None:
    answer = Gateway(SECOND).call(action, mapping(5001, 4001) | IN_RANGE | arguments)
    assert answer.status == 200 or answer.error in KNOWN_ERRORS
