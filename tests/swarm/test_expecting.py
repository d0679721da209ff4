"""Rule D15: from where an arrival may come whose other end waits for our first word."""

from __future__ import annotations

from p2pnet.core.addresses import parse
from p2pnet.swarm.expecting import ExpectedListeners

ONE, SAME, OTHER, SIX = (
    parse(text)
    for text in (
        "/ip4/11.0.0.1/tcp/1",
        "/ip4/11.0.0.1/tcp/40000",
        "/ip4/11.0.0.2/tcp/1",
        "/ip6/2600::1/tcp/1",
    )
)
CIRCUIT = parse(
    "/ip4/11.0.0.1/tcp/1/p2p/QmcgpsyWgH8Y8ajJz1Cu72KnS5uo2Aa2LpzU7kinSupNKC/p2p-circuit"
)


def test_the_ip_counts_and_the_port_does_not() -> None:
    """D15."""
    expected = ExpectedListeners(4)
    assert expected.patience(ONE) is None
    with expected.during([ONE, SIX], 0.2):
        assert (expected.patience(ONE), expected.patience(SAME)) == (0.2, 0.2)
        assert expected.patience(SIX) == 0.2
        assert expected.patience(OTHER) is None
    assert expected.patience(ONE) is None
    assert len(expected) == 0


def test_nobody_is_expected_over_a_relay() -> None:
    """D15."""
    expected = ExpectedListeners(4)
    with expected.during([ONE, CIRCUIT], 0.2):
        assert expected.patience(CIRCUIT) is None


def test_of_two_punches_at_one_ip_the_more_patient_counts_until_it_ends() -> None:
    expected = ExpectedListeners(4)
    with expected.during([ONE], 0.2):
        with expected.during([SAME, OTHER], 0.5):
            assert expected.patience(ONE) == 0.5
        assert expected.patience(ONE) == 0.2


def test_no_more_punches_are_minded_than_the_bound() -> None:
    """D15."""
    expected = ExpectedListeners(1)
    with expected.during([ONE], 0.2):
        with expected.during([OTHER], 0.2):
            assert expected.patience(OTHER) is None
            assert len(expected) == 1
        assert expected.patience(ONE) == 0.2
    with expected.during([OTHER], 0.2):
        assert expected.patience(OTHER) == 0.2
