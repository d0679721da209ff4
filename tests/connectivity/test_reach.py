"""What kinds of peers get direct is what the theory of NATs says. Rule V24."""

from __future__ import annotations

import itertools

import pytest

from p2pnet.connectivity.nat import Filtering, Mapping, NatClass
from p2pnet.connectivity.reach import PeerKind, Way, prospects
from p2pnet.events import Reachability
from p2pnet.testing.kinds import Kind
from p2pnet.testing.nat_kind import Dependence, NatKind
from p2pnet.testing.theory import can_punch

FREE, BY_ADDRESS, BY_PORT = Dependence
FILTERS = {
    Filtering.ENDPOINT_INDEPENDENT: FREE,
    Filtering.ADDRESS_DEPENDENT: BY_ADDRESS,
    Filtering.ADDRESS_AND_PORT_DEPENDENT: BY_PORT,
}
MAPPINGS = {
    Mapping.NONE: NatKind(translates=False),
    Mapping.ENDPOINT_INDEPENDENT: NatKind(mapping=FREE),
    Mapping.DEPENDENT: NatKind(mapping=BY_PORT),
    Mapping.ADDRESS_DEPENDENT: NatKind(mapping=BY_ADDRESS),
    Mapping.ADDRESS_AND_PORT_DEPENDENT: NatKind(mapping=BY_PORT),
}
PEERS = {
    PeerKind.PUBLIC: (Kind("public", ()),),
    PeerKind.LENIENT: (
        Kind("full cone", (NatKind(mapping=FREE, filtering=FREE),)),
        Kind("address", (NatKind(mapping=FREE, filtering=BY_ADDRESS),)),
    ),
    PeerKind.STRICT: (
        Kind("port", (NatKind(mapping=FREE, filtering=BY_PORT),)),
        Kind("firewall", (NatKind(translates=False, filtering=BY_PORT),)),
    ),
    PeerKind.SYMMETRIC: (Kind("symmetric", (NatKind(mapping=BY_PORT, filtering=BY_PORT),)),),
}


@pytest.mark.parametrize(("mapping", "filtering"), list(itertools.product(MAPPINGS, FILTERS)))
def test_what_is_told_is_what_the_theory_says(mapping: Mapping, filtering: Filtering) -> None:
    """V24."""
    box = MAPPINGS[mapping]
    own = NatKind(mapping=box.mapping, filtering=FILTERS[filtering], translates=box.translates)
    for told in prospects(NatClass(mapping, filtering), Reachability.PRIVATE):
        for peer in PEERS[told.kind]:
            direct = can_punch(Kind("own", (own,)), peer, "tcp").direct
            assert told.way is (Way.DIRECT if direct else Way.RELAYED), (told, peer)


def test_a_public_host_is_direct_with_everybody() -> None:
    """V24."""
    for nat in (NatClass(), NatClass(Mapping.DEPENDENT)):
        assert {told.way for told in prospects(nat, Reachability.PUBLIC)} == {Way.DIRECT}


@pytest.mark.parametrize("mapping", Mapping)
@pytest.mark.parametrize("filtering", Filtering)
def test_what_is_not_known_is_not_guessed(mapping: Mapping, filtering: Filtering) -> None:
    """V24: unknown is what the theory decides one way or the other, by what is not known."""
    told = prospects(NatClass(mapping, filtering), Reachability.UNKNOWN)
    mappings = [mapping] if mapping is not Mapping.UNKNOWN else list(MAPPINGS)
    filters = [filtering] if filtering is not Filtering.UNKNOWN else list(FILTERS)
    for number, each in enumerate(told):
        ways = {
            prospects(NatClass(m, f), Reachability.PRIVATE)[number].way
            for m in mappings
            for f in filters
        }
        assert ways == {each.way} or (len(ways) == 2 and each.way is Way.UNKNOWN)
