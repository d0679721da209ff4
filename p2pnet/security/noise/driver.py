"""Noise over trio streams: the handshake, and the stream it leads to. Rules: specs/noise.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import trio

from p2pnet.core.env import Env
from p2pnet.core.foreword import Forewords
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.security.noise.cipher import (
    MAX_MESSAGE_BYTES,
    MAX_PLAINTEXT_BYTES,
    Opener,
    Sealer,
    sealed_size,
)
from p2pnet.security.noise.machine import (
    KEY_BYTES,
    Credentials,
    Established,
    HandshakeMachine,
)
from p2pnet.security.noise.messages import NOISE
from p2pnet.security.sealed import SealedStream

MIN_HANDSHAKE_BYTES = 1024
BATCH_BYTES = 8 * MAX_PLAINTEXT_BYTES
"""Most plaintext sealed before any of it is sent: about half a MiB, in whole messages."""
LARGE_BYTES = 131_072
"""A batch of that many bytes is sealed into a buffer that is lent; only fast lines have such."""
LENT_BUFFERS = 2
"""So many for all connections together; further large batches have memory of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The part: Noise XX, ``/noise``."""

    max_handshake_bytes: int = 16_384
    """Bounds one handshake message; keys, signature and muxers need less than 1 KiB (N12)."""

    def __post_init__(self) -> None:
        if not MIN_HANDSHAKE_BYTES <= self.max_handshake_bytes <= MAX_MESSAGE_BYTES:
            raise ValueError(
                f"max_handshake_bytes is between {MIN_HANDSHAKE_BYTES} and {MAX_MESSAGE_BYTES}"
            )

    def build(self, kit: Kit) -> NoiseSecurity:
        return NoiseSecurity(self, env=kit.env, key=kit.key)


class Buffers:
    """Room for sealed batches, lent while they are sent: new memory costs more than sealing does.

    There is none until it is needed, and never more than ``LENT_BUFFERS``.
    """

    def __init__(self) -> None:
        self._free: list[bytearray] = []
        self._unmade = LENT_BUFFERS

    def borrow(self) -> bytearray | None:
        """Return room for a batch, which is to be given back; None if all is lent."""
        if self._free:
            return self._free.pop()
        if not self._unmade:
            return None
        self._unmade -= 1
        return bytearray(sealed_size(BATCH_BYTES))

    def give_back(self, buffer: bytearray) -> None:
        self._free.append(buffer)


class NoiseSecurity:
    """Does handshakes; one static Noise key serves them all."""

    protocol_id = NOISE

    def __init__(self, config: Noise, *, env: Env, key: PrivateKey) -> None:
        self._config = config
        self._env = env
        self._credentials = Credentials.create(key, env.random_bytes(KEY_BYTES))  # N3
        self._buffers = Buffers()

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        """See Security.secure. On any error the stream is closed (N13)."""
        return await self._secure(stream, role, expected=expected, muxers=muxers)

    async def secure_saying(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
        foreword: Callable[[], bytes],
    ) -> Secured:
        """See TalkativeSecurity.secure_saying."""
        return await self._secure(stream, role, expected=expected, muxers=muxers, foreword=foreword)

    async def _secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
        foreword: Callable[[], bytes] | None = None,
    ) -> Secured:
        try:
            machine = HandshakeMachine(
                role,
                self._credentials,
                ephemeral=self._env.random_bytes(KEY_BYTES),
                muxers=muxers,
                expected=expected,
                max_bytes=self._config.max_handshake_bytes,
            )
            machine.foreword = foreword
            established, round_trip = await shake_hands(stream, machine)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Secured(
            NoiseStream(stream, established, self._buffers),
            remote_key=established.remote_key,
            peer_id=established.peer_id,
            muxer=established.muxer,
            forewords=Forewords(established.said, established.heard, round_trip),
        )


async def shake_hands(
    stream: trio.abc.Stream, machine: HandshakeMachine
) -> tuple[Established, float]:
    """Return what came of it, and how many seconds the remote took to answer, way and all.

    A dialer sends message 1 and a listener message 2, and the answer to that is the last word
    that each receives.
    """
    established: Established | None = None
    asked_at = round_trip = 0.0
    while True:
        if data := machine.data_to_send():
            if established is None:
                asked_at = trio.current_time()
            await stream.send_all(data)
        if established is not None:
            return established, round_trip
        established = machine.receive(bytes(await stream.receive_some(machine.wanted())))
        round_trip = trio.current_time() - asked_at


class NoiseStream(SealedStream):
    """A stream secured by Noise.

    Plaintext is handed out as it comes, all messages of a chunk at once; nothing is held while
    the stream is idle.
    """

    def __init__(self, stream: trio.abc.Stream, established: Established, buffers: Buffers) -> None:
        self._sealer = Sealer(established.sending)
        self._opener = Opener(established.receiving)
        self._buffers = buffers
        super().__init__(stream, self._sealer.seal, batch_bytes=BATCH_BYTES)

    async def _send_batch(self, batch: memoryview) -> None:
        buffer = self._buffers.borrow() if len(batch) >= LARGE_BYTES else None
        if buffer is None:
            await super()._send_batch(batch)
            return
        try:
            with memoryview(buffer) as room:
                size = self._sealer.seal_into(batch, room)
                with room[:size] as frames:
                    await self._stream.send_all(frames)
        finally:
            self._buffers.give_back(buffer)

    async def _receive(self) -> bytearray:
        """Return the plaintext of at least one message; nothing at the end of the stream."""
        while True:
            data = await self._stream.receive_some()
            if not data:
                if self._opener.is_between_frames:
                    return bytearray()
                raise ConnectionLost("the connection ended within a Noise message")  # N11
            if plaintext := self._opener.open(data):  # N11: an empty message is passed over
                return plaintext

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()
