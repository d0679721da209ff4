"""The conversations of the relay, by script, without any event loop.

specs/relay.md R4, R7, R19, R22, R25.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Generic, TypeVar

import pytest

from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ProtocolError, RelayRefused
from p2pnet.protocols.relay.dialogue import (
    Refusal,
    connect,
    offer,
    receive_offer,
    receive_request,
    reserve,
)
from p2pnet.protocols.relay.messages import (
    HOP,
    HopConnect,
    HopMessage,
    HopStatus,
    Limit,
    Reservation,
    Reserve,
    Status,
    StopConnect,
    StopMessage,
    StopStatus,
)

M = TypeVar("M")
R = TypeVar("R")

RELAY = PeerId(b"\x12\x20" + b"R" * 32)
BOB = PeerId(b"\x12\x20" + b"B" * 32)


class Script(Generic[M]):
    """A channel that says its lines, and takes down what it hears."""

    def __init__(self, *lines: M | ProtocolError) -> None:
        self.lines = list(lines)
        self.heard: list[M] = []

    async def send(self, message: M, /) -> None:
        self.heard.append(message)

    async def receive(self) -> M:
        line = self.lines.pop(0)
        if isinstance(line, ProtocolError):
            raise line
        return line


def play(dialogue: Coroutine[object, object, R]) -> R:
    """Run a dialogue that never waits."""
    with pytest.raises(StopIteration) as stopped:
        dialogue.send(None)
    result: R = stopped.value.value
    return result


def test_r7_a_reservation_is_asked_for_and_granted() -> None:
    reservation, limit = Reservation(1000), Limit(120, 131072)
    script = Script[HopMessage](HopStatus(Status.OK, reservation, limit))
    assert play(reserve(script, RELAY)) == (reservation, limit)
    assert script.heard == [Reserve()]


def test_r7_a_refused_reservation_says_by_whom_and_why() -> None:
    script = Script[HopMessage](HopStatus(Status.RESERVATION_REFUSED))
    with pytest.raises(RelayRefused, match="another relay") as raised:
        reserve(script, RELAY).send(None)
    assert raised.value.relay == RELAY
    assert raised.value.status == "RESERVATION_REFUSED"


@pytest.mark.parametrize("answer", [HopStatus(Status.OK), Reserve(), HopConnect(BOB)])
def test_r7_an_answer_that_is_no_reservation_breaks_the_rules(answer: HopMessage) -> None:
    with pytest.raises(ProtocolError):
        reserve(Script(answer), RELAY).send(None)


def test_r25_a_circuit_is_asked_for_and_its_limit_returned() -> None:
    script = Script[HopMessage](HopStatus(Status.OK, limit=Limit(120)))
    assert play(connect(script, RELAY, BOB)) == Limit(120)
    assert script.heard == [HopConnect(BOB)]


def test_r25_a_circuit_to_a_peer_without_reservation_says_what_to_do() -> None:
    script = Script[HopMessage](HopStatus(Status.NO_RESERVATION))
    with pytest.raises(RelayRefused, match="is it running with --relay") as raised:
        connect(script, RELAY, BOB).send(None)
    assert raised.value.status == "NO_RESERVATION"


def test_r4_an_unknown_status_is_a_no() -> None:
    with pytest.raises(RelayRefused, match="status 999"):
        connect(Script[HopMessage](HopStatus(999)), RELAY, BOB).send(None)


@pytest.mark.parametrize("request_", [Reserve(), HopConnect(BOB)])
def test_a_relay_hears_a_request(request_: HopMessage) -> None:
    assert play(receive_request(Script(request_))) == request_


def test_r22_a_relay_tells_the_malformed_from_the_unexpected() -> None:
    broken = Script[HopMessage](ProtocolError(HOP, "garbage"))
    assert play(receive_request(broken)) == Refusal(Status.MALFORMED_MESSAGE, "garbage")
    refusal = play(receive_request(Script[HopMessage](HopStatus(Status.OK))))
    assert isinstance(refusal, Refusal)
    assert refusal.status is Status.UNEXPECTED_MESSAGE


def test_r19_an_offer_returns_whatever_the_target_says() -> None:
    for status in (Status.OK, Status.PERMISSION_DENIED, 999):
        script = Script[StopMessage](StopStatus(status))
        assert play(offer(script, BOB, Limit(1, 2))) == status
        assert script.heard == [StopConnect(BOB, Limit(1, 2))]
    with pytest.raises(ProtocolError, match="expected STATUS"):
        offer(Script[StopMessage](StopConnect(BOB)), BOB, None).send(None)


def test_r22_a_target_hears_who_calls_or_what_is_wrong() -> None:
    assert play(receive_offer(Script[StopMessage](StopConnect(BOB)))) == StopConnect(BOB)
    broken = Script[StopMessage](ProtocolError(HOP, "garbage"))
    assert play(receive_offer(broken)) == Refusal(Status.MALFORMED_MESSAGE, "garbage")
    refusal = play(receive_offer(Script[StopMessage](StopStatus(Status.OK))))
    assert isinstance(refusal, Refusal)
    assert refusal.status is Status.UNEXPECTED_MESSAGE
