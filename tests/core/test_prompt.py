"""Sending at once: who says that it can."""

from __future__ import annotations

import pytest
import trio.testing

from p2pnet.core.env import SocketStream
from p2pnet.core.prompt import Prompt, prompt_sender
from p2pnet.core.rewound import RewoundStream
from p2pnet.negotiation.driver import LazyStream
from p2pnet.security.sealed import SealedStream


@pytest.mark.parametrize("kind", [SocketStream, RewoundStream, LazyStream, SealedStream])
def test_who_can_send_at_once_says_so(kind: type) -> None:
    assert "prompt_sender" in vars(kind)
    assert issubclass(kind, Prompt)


def test_over_a_stream_that_does_not_nothing_is_sent_at_once() -> None:
    below, _ = trio.testing.memory_stream_pair()
    assert prompt_sender(below) is None
    assert prompt_sender(RewoundStream(below, b"heard")) is None
