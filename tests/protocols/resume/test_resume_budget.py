"""What streams may keep, and what is left for others. RS15 and RS23 of specs/resume.md."""

from __future__ import annotations

from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from p2pnet.core.addresses import parse
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.protocols.resume import Resume
from p2pnet.protocols.resume.budget import Budget, Place, place_of
from p2pnet.protocols.resume.messages import SMALLEST_WINDOW
from p2pnet.protocols.resume.service import FIRST_WINDOW
from tests.protocols.resume.peers import ALICE, BOB, CAROL

KEYS = [
    PeerId.from_public_key(PrivateKey.from_seed(number.to_bytes(32)).public_key)
    for number in range(1, 100)
]
STRANGER = (f"a public address {number}" for number in count())
USUAL = Resume()


def usual() -> Budget:
    return Budget(
        USUAL.max_bytes,
        streams=USUAL.max_streams,
        first=FIRST_WINDOW,
        smallest=SMALLEST_WINDOW,
        largest=USUAL.window,
    )


def fill(budget: Budget, place: Place, most: int = 10_000) -> int:
    """Open as many streams as one place may have."""
    return next(n for n in range(most + 1) if n == most or budget.take(place) is None)


def test_windows_are_small_once_the_budget_is_given_out() -> None:
    """RS15."""
    budget = Budget(500, streams=100, first=100, smallest=20, largest=400)
    places = [next(STRANGER) for _ in range(9)]
    windows = [budget.take(place) for place in places]
    assert windows == [100, 20, 20, 20, 20, 20, 20, 20, None]
    assert budget.left == 20
    budget.give_back(places[0], 2 * 100)
    assert budget.take(next(STRANGER)) == 20
    for place in places[1:5]:
        budget.give_back(place, 2 * 20)
    assert budget.take(next(STRANGER)) == 100


@given(
    total=st.integers(2, 5000),
    streams=st.integers(1, 20),
    smallest=st.integers(1, 50),
    turns=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.booleans()), max_size=60),
)
def test_all_windows_together_never_exceed_the_budget(
    total: int, streams: int, smallest: int, turns: list[tuple[int, int, bool]]
) -> None:
    """RS15: whatever is opened, grows and ends, and wherever it is from."""
    first, largest = 2 * smallest, 16 * smallest
    budget = Budget(total, streams=streams, first=first, smallest=smallest, largest=largest)
    there: list[tuple[Place, list[int]]] = []
    for turn, index, is_key in turns:
        if turn == 0 or not there:
            place: Place = KEYS[index % 4] if is_key else f"place {index % 4}"
            window = budget.take(place)
            there += [] if window is None else [(place, [window, window])]
            continue
        place, windows = there[index % len(there)]
        if turn == 1:
            windows[index % 2] += budget.grow(windows[index % 2])
        else:
            budget.give_back(place, sum(windows))
            there.remove((place, windows))
        assert sum(sum(windows) for _, windows in there) == total - budget.left <= total
        assert len(there) <= streams
    for place, windows in there:
        budget.give_back(place, sum(windows))
    assert budget.left == total
    assert budget._of == Counter(), "nothing is kept of who has nothing"


def test_windows_grow_as_long_as_enough_is_left_for_new_streams() -> None:
    """RS15."""
    budget = Budget(1000, streams=100, first=100, smallest=10, largest=300)
    place, other = next(STRANGER), next(STRANGER)
    assert budget.take(place) == 100
    assert budget.grow(100) == 100
    assert budget.grow(200) == 100
    assert budget.grow(300) == 0
    assert budget.grow(200) == 100
    assert budget.grow(100) == 0
    assert budget.take(other) == 100
    budget.give_back(place, 500)
    assert budget.grow(100) == 100
    budget.give_back(other, 300)
    assert budget.left == 1000


def test_no_place_takes_what_others_need() -> None:
    """RS23: one may have half of all, by bytes as by number, and four leave hundreds of streams."""
    budget = usual()
    assert 256 <= fill(budget, next(STRANGER)) <= USUAL.max_streams // 2
    assert budget.left > USUAL.max_bytes // 2
    for _ in range(3):
        fill(budget, next(STRANGER))
    assert fill(budget, next(STRANGER)) > 64
    assert budget.take(next(STRANGER)) is not None


def test_large_windows_are_for_who_has_few_streams() -> None:
    """RS23."""
    budget = usual()
    place = next(STRANGER)
    windows = [budget.take(place) for _ in range(256)]
    assert windows == sorted(windows, reverse=True)  # type: ignore[type-var]
    assert windows.count(FIRST_WINDOW) == 103
    assert budget.take(next(STRANGER)) == FIRST_WINDOW


def test_a_key_has_less_and_all_of_them_leave_some_to_others() -> None:
    """RS23: over a relay a place is but a key, and those are free."""
    budget = usual()
    assert 128 <= fill(budget, ALICE) <= 256
    for key in KEYS[:15]:
        fill(budget, key)
    assert fill(budget, BOB) >= 10
    for key in KEYS[15:]:
        fill(budget, key)
    assert fill(budget, CAROL) == 0
    assert fill(budget, next(STRANGER)) >= 64
    assert fill(budget, next(STRANGER)) >= 32


def test_few_streams_are_shared_as_well() -> None:
    """RS23: where it is their number that is short."""
    budget = Budget(10_000, streams=9, first=10, smallest=10, largest=10)
    assert [fill(budget, next(STRANGER)) for _ in range(5)] == [3, 2, 2, 1, 1]
    assert fill(Budget(20, streams=1, first=10, smallest=10, largest=10), next(STRANGER)) == 1


def test_a_place_is_what_a_stranger_has_at_hand() -> None:
    """RS23: an IPv4 address or IPv6 /56; one peer over a relay, or in a private network."""
    relay = f"/ip4/1.2.3.4/tcp/1/p2p/{BOB}/p2p-circuit"

    def place(address: str) -> Place:
        return place_of(ALICE, parse(address))

    assert place("/ip4/1.2.3.4/tcp/1") == place("/ip4/1.2.3.4/udp/9/quic-v1")
    assert place("/ip4/1.2.3.4/tcp/1") == place_of(BOB, parse("/ip4/1.2.3.4/tcp/1"))
    assert place("/ip4/1.2.3.4/tcp/1") != place("/ip4/1.2.3.5/tcp/1")
    assert place("/ip6/2a00:1:2:3::1/tcp/1") == place("/ip6/2a00:1:2:ff::2/tcp/1")
    assert place("/ip4/192.168.1.1/tcp/1") == ALICE
    assert place(relay) == ALICE
