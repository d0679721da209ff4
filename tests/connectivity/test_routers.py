"""Which router leads out of a network, and when it is another. Rule V26."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from p2pnet.connectivity.routers import Routers

HOME, OTHER, SIX, OTHER_SIX = "192.168.1.1", "192.168.1.254", "2a00::1", "2a00::2"


@pytest.mark.parametrize(
    ("looks", "moves"),
    [
        ([[HOME], [HOME]], 0),
        ([[HOME], [OTHER]], 1),
        ([[HOME], [], [HOME]], 0),
        ([[HOME], [], [OTHER]], 1),
        ([[], [HOME]], 0),
        ([[HOME], [HOME, OTHER]], 0),
        ([[HOME, OTHER], [OTHER, HOME]], 1),
        ([[HOME], [HOME, SIX], [SIX]], 0),
        ([[HOME, SIX], [HOME, OTHER_SIX], [HOME, OTHER_SIX]], 1),
        ([[HOME], [OTHER], [HOME]], 2),
    ],
)
def test_v26_another_best_router_of_a_family_is_another_network(
    looks: Sequence[Sequence[str]], moves: int
) -> None:
    routers = Routers()
    assert [routers.look(gateways) for gateways in looks].count(True) == moves


def test_v26_the_router_that_comes_after_the_address_of_another_network_is_no_further_move() -> (
    None
):
    routers = Routers()
    routers.look([HOME])
    routers.look([])
    routers.moved()
    assert not routers.look([OTHER])
    assert routers.look([HOME])


def test_v26_what_is_there_already_in_another_network_is_known() -> None:
    routers = Routers()
    routers.look([HOME])
    routers.look([OTHER])
    routers.moved()
    assert routers.look([HOME])
