"""Negotiates over trio streams, and never reads a byte too many. Rules: specs/multistream.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import index

import trio

from p2pnet.core.prompt import Prompt, SendNow, prompt_sender
from p2pnet.errors import P2PError
from p2pnet.negotiation.machine import (
    MAX_PROPOSALS,
    Initiator,
    LazyInitiation,
    Responder,
    Supported,
)

ANSWER_GRACE = 5.0
"""Seconds that closing a stream waits for the answer to its proposal."""


async def select_one(stream: trio.abc.Stream, proposals: Sequence[str]) -> str:
    """Propose protocols in order of preference; return the first the remote accepts.

    On any error the stream is of no more use, and the caller resets or closes it.

    Raises:
        NegotiationFailed: if the remote speaks none of them.
        ProtocolError: if it breaks a rule, or ends the stream within its answer.
        StreamReset: if it ended the stream without a byte of an answer.
    """
    return await negotiate(stream, Initiator(proposals))


async def handle_one(
    stream: trio.abc.Stream, supported: Supported, *, max_proposals: int = MAX_PROPOSALS
) -> str:
    """Listen to proposals; accept the first that is supported, and return it.

    Raises:
        ProtocolError: if the remote breaks a rule, proposes too often, or gives up.
        StreamReset: if it ended the stream without a byte.
    """
    return await negotiate(stream, Responder(supported, max_proposals=max_proposals))


def listen_now(
    receive_nowait: Callable[[int], bytes | bytearray | None], machine: Responder
) -> str | None:
    """Listen to what has come already; return the protocol if it is agreed on by that.

    The answer, if there is one, is still to be sent.
    """
    agreed: str | None = None
    while agreed is None and not machine.answer:
        heard = receive_nowait(machine.wanted())
        if heard is None:
            break
        agreed = machine.receive(bytes(heard))
    return agreed


async def negotiate(
    stream: trio.abc.Stream, machine: Initiator | Responder, agreed: str | None = None
) -> str:
    while True:
        if data := machine.data_to_send():
            await stream.send_all(data)
        if agreed is not None:
            return agreed
        agreed = machine.receive(bytes(await stream.receive_some(machine.wanted())))


class LazyStream(trio.abc.HalfCloseableStream, Prompt):
    """A stream on which one protocol is proposed along with the first data.

    The remote's answer is checked when the first data is received, and there a refusal is
    raised: NegotiationFailed, once and ever after. As on every trio stream, one task may send
    while another receives.
    """

    def __init__(self, stream: trio.abc.HalfCloseableStream, protocol_id: str) -> None:
        self._stream = stream
        self._initiation = LazyInitiation(protocol_id)
        self._flushing: trio.Event | None = None
        self._flush_failed = False
        self._confirming: trio.Event | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._wait_flushed()
        if prefix := self._initiation.prefix():
            data = prefix + bytes(data)
        await self._stream.send_all(data)

    def prompt_sender(self) -> SendNow | None:
        return prompt_sender(self._stream) if self._initiation.done else None

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive as every stream does, the remote's answer having been checked.

        Raises:
            NegotiationFailed: if the remote does not speak the protocol.
            ProtocolError, StreamReset: if it does not negotiate by the rules.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if not self._initiation.done and (data := await self._confirm(max_bytes)):
            return data
        return await self._stream.receive_some(max_bytes)

    async def _confirm(self, more: int | None = 0) -> bytes | bytearray:
        """Read the remote's answer, for whichever of receiving and ending comes first.

        Returns the data that came with its end: at most ``more`` bytes, or any number.
        """
        await self._flush()  # M6
        while self._confirming is not None:
            await self._confirming.wait()
        self._confirming = trio.Event()
        try:
            while wanted := self._initiation.wanted():
                most = None if more is None else wanted + more
                heard = await self._stream.receive_some(most)
                self._initiation.receive(bytes(heard[:wanted]))
                if len(heard) > wanted:
                    return heard[wanted:]
        finally:
            self._confirming.set()
            self._confirming = None
        return b""

    async def send_eof(self) -> None:
        """End the data, once the remote has agreed to the protocol (M12).

        Raises:
            NegotiationFailed: if the remote does not speak the protocol.
        """
        if not self._initiation.done:
            await self._confirm()
        await self._stream.send_eof()

    async def aclose(self) -> None:
        try:
            if not self._initiation.done:
                with trio.move_on_after(ANSWER_GRACE):
                    await self._confirm()  # M6 M12
        except (P2PError, trio.BrokenResourceError, trio.ClosedResourceError):
            # Nobody is there, or nobody who wants to hear: closing is all that was asked for.
            await trio.lowlevel.checkpoint()
        finally:
            await self._stream.aclose()

    async def _flush(self) -> None:
        """Send the proposal if nothing was sent yet; a sender of data waits meanwhile."""
        await self._wait_flushed()
        if not (prefix := self._initiation.prefix()):
            return
        self._flushing = trio.Event()
        self._flush_failed = True
        try:
            await self._stream.send_all(prefix)
            self._flush_failed = False
        finally:
            self._flushing.set()
            self._flushing = None

    async def _wait_flushed(self) -> None:
        if self._flushing is not None:
            await self._flushing.wait()
        if self._flush_failed:
            # Data without the proposal in front of it would be taken for a proposal.
            raise trio.BrokenResourceError("sending the proposal was interrupted")
