"""The named kinds: their number, their order, and what sets each apart."""

from __future__ import annotations

from p2pnet.testing.kinds import ALL_KINDS, KINDS, MATRIX, SPECIAL_KINDS, Kind
from p2pnet.testing.nat import Dependence, NatKind


def test_there_are_twelve_usual_kinds_in_their_order() -> None:
    assert list(KINDS) == [
        "open",
        "firewall",
        "full-cone",
        "address-restricted",
        "port-restricted",
        "port-restricted-reset",
        "port-restricted-random",
        "address-symmetric",
        "symmetric",
        "symmetric-sequential",
        "carrier",
        "carrier-symmetric",
    ]


def test_the_matrix_has_all_kinds_but_those_for_hosts_of_one_home() -> None:
    assert list(MATRIX) == [name for name in ALL_KINDS if name != "hairpinning"]
    assert len(MATRIX) == 17


def test_no_two_kinds_are_the_same_and_each_has_its_name() -> None:
    assert len({kind.nats for kind in ALL_KINDS.values()}) == len(ALL_KINDS)
    assert all(kind.name == name for name, kind in ALL_KINDS.items())
    assert list(ALL_KINDS) == [*KINDS, *SPECIAL_KINDS]


def test_a_usual_home_is_what_a_nat_is_by_default() -> None:
    assert KINDS["port-restricted"] == Kind("port-restricted", (NatKind(),))


def test_carriers_stand_behind_the_home() -> None:
    for name, mapping in (
        ("carrier", Dependence.ENDPOINT_INDEPENDENT),
        ("carrier-symmetric", Dependence.ADDRESS_AND_PORT),
    ):
        home, carrier = KINDS[name].nats
        assert home == NatKind()
        assert carrier.mapping is mapping
        assert not carrier.hairpinning
