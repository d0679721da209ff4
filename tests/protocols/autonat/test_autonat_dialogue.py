"""What the vectors of specs/autonat.md leave open in the conversations of AutoNAT v2."""

from __future__ import annotations

import pytest

from p2pnet.errors import LimitExceeded, ProtocolError
from p2pnet.protocols.autonat.dialogue import MAX_PAYMENT, MIN_CHUNK, ask, collect, payment
from p2pnet.protocols.autonat.messages import (
    DialDataRequest,
    DialDataResponse,
    DialRequest,
    DialResponse,
    Message,
)
from tests.specs.codecs.autonat import REQUEST, TurnByTurn


class Script:
    """Says what it was told to, and keeps what it hears."""

    def __init__(self, *says: Message) -> None:
        self.says = list(says)
        self.heard: list[Message] = []

    async def send(self, message: object, /) -> None:
        assert isinstance(message, DialRequest | DialDataRequest | DialDataResponse)
        self.heard.append(message)

    async def receive(self) -> Message:
        if not self.says:
            raise ProtocolError("script", "the stream ended without an answer")
        return self.says.pop(0)


async def test_a_payment_of_ours_is_what_a_server_of_ours_wants() -> None:
    """AN13 AN21."""
    for num_bytes in (1, 99, 100, 3999, 4000, 4001, 4099, 30_000, 65_432, MAX_PAYMENT):
        script = Script(*payment(num_bytes))
        await collect(script, DialDataRequest(0, num_bytes))
        assert not script.says
        total = sum(len(message.data) for message in payment(num_bytes))
        assert total == num_bytes


async def test_a_server_reads_no_more_messages_than_the_data_can_need() -> None:
    """AN13: nobody keeps a dial waiting by drops."""
    drops = [DialDataResponse(bytes(MIN_CHUNK))] * 2000
    script = Script(*drops)
    await collect(script, DialDataRequest(0, 30_000))
    assert len(drops) - len(script.says) == 300


async def test_empty_data_is_a_drop() -> None:
    """AN13."""
    script = Script(DialDataResponse(b""))
    with pytest.raises(ProtocolError, match="0 bytes"):
        await collect(script, DialDataRequest(0, 30_000))


async def test_what_is_too_dear_is_not_paid() -> None:
    """AN21."""

    def refuse(num_bytes: int) -> None:
        raise LimitExceeded("pocket money", num_bytes)

    script = Script(DialDataRequest(0, 30_000))
    with pytest.raises(LimitExceeded):
        await ask(TurnByTurn(script), REQUEST, refuse)
    assert script.heard == [REQUEST]


async def test_no_bytes_at_all_cost_nothing() -> None:
    """AN21: there is no lower bound, and none is needed."""
    script = Script(DialDataRequest(0, 0), DialResponse(101))
    assert await ask(TurnByTurn(script), REQUEST, lambda num_bytes: None) == DialResponse(101)
