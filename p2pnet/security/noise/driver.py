"""Noise over trio streams: the handshake, and the stream it leads to. Rules: specs/noise.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import index

import trio

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.core.prompt import SendNow, prompt_sender
from p2pnet.errors import ConnectionLost, SecurityError
from p2pnet.interfaces import Kit, Role, Secured
from p2pnet.security.noise.cipher import (
    MAX_MESSAGE_BYTES,
    MAX_PLAINTEXT_BYTES,
    Opener,
    Sealer,
)
from p2pnet.security.noise.machine import (
    KEY_BYTES,
    Credentials,
    Established,
    HandshakeMachine,
)
from p2pnet.security.noise.messages import NOISE

MIN_HANDSHAKE_BYTES = 1024
BATCH_BYTES = 8 * MAX_PLAINTEXT_BYTES
"""Most plaintext sealed before any of it is sent: about half a MiB, in whole messages."""


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


class NoiseSecurity:
    """Does handshakes; one static Noise key serves them all."""

    protocol_id = NOISE

    def __init__(self, config: Noise, *, env: Env, key: PrivateKey) -> None:
        self._config = config
        self._env = env
        self._credentials = Credentials.create(key, env.random_bytes(KEY_BYTES))  # N3

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        """See Security.secure. On any error the stream is closed (N13)."""
        try:
            machine = HandshakeMachine(
                role,
                self._credentials,
                ephemeral=self._env.random_bytes(KEY_BYTES),
                muxers=muxers,
                expected=expected,
                max_bytes=self._config.max_handshake_bytes,
            )
            established = await shake_hands(stream, machine)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return Secured(
            NoiseStream(stream, established),
            remote_key=established.remote_key,
            peer_id=established.peer_id,
            muxer=established.muxer,
        )


async def shake_hands(stream: trio.abc.Stream, machine: HandshakeMachine) -> Established:
    established: Established | None = None
    while True:
        if data := machine.data_to_send():
            await stream.send_all(data)
        if established is not None:
            return established
        established = machine.receive(bytes(await stream.receive_some(machine.wanted())))


class NoiseStream(trio.abc.Stream):
    """A secured stream.

    Bytes that were tampered with raise StreamTampered, from then on and for the sender too,
    and close the stream under it. Plaintext is handed out as it comes, all messages of a chunk
    at once; nothing is held while the stream is idle.
    """

    def __init__(self, stream: trio.abc.Stream, established: Established) -> None:
        self._stream = stream
        self._below = prompt_sender(stream)
        self._sealer = Sealer(established.sending)
        self._opener = Opener(established.receiving)
        self._sending = False
        self._send_failed = False
        self._receiving = False
        self._rest: memoryview | None = None
        self._closed = False
        self._error: SecurityError | ConnectionLost | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self._check_sender()
        self._sending = self._send_failed = True
        try:
            await self._send(data)
            self._send_failed = False
        except ConnectionLost as error:
            await self._fail(error)
            raise
        except trio.ClosedResourceError:
            self._check_usable()
            raise
        finally:
            self._sending = False

    async def _send(self, data: bytes | bytearray | memoryview) -> None:
        if not data:
            if self._below is None:
                await trio.lowlevel.checkpoint()
            else:
                await self._stream.send_all(data)  # What is left of a prompt send goes now.
            return
        with memoryview(data) as view:
            for start in range(0, len(view), BATCH_BYTES):
                with view[start : start + BATCH_BYTES] as batch:
                    frames = self._sealer.seal(batch)
                await self._stream.send_all(frames)

    def prompt_sender(self) -> SendNow | None:
        return None if self._below is None else partial(self._send_now, self._below)

    def _send_now(self, below: SendNow, data: bytes | bytearray) -> bool:
        self._check_sender()
        self._send_failed = True
        with memoryview(data) as view:
            is_gone = below(self._sealer.seal(view))
        self._send_failed = False
        return is_gone

    def _check_sender(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        if self._send_failed:
            # The remote waits for the rest of a message, whose bytes are gone.
            raise trio.BrokenResourceError("an earlier send was interrupted")

    async def wait_send_all_might_not_block(self) -> None:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._check_usable()
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving on this stream")
        self._check_usable()
        self._receiving = True
        try:
            if self._rest is None:
                return self._take(await self._receive(), max_bytes)
            await trio.lowlevel.checkpoint()
            return self._take(self._rest, max_bytes)
        except (SecurityError, ConnectionLost) as error:
            await self._fail(error)
            raise
        except trio.ClosedResourceError:
            self._check_usable()
            raise
        finally:
            self._receiving = False

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

    def _take(self, chunk: bytearray | memoryview, max_bytes: int | None) -> bytes | bytearray:
        """Return as much of a chunk as is asked for, and keep the rest for the next time."""
        if max_bytes is not None and len(chunk) > max_bytes:
            view = memoryview(chunk)
            self._rest = view[max_bytes:]
            return bytes(view[:max_bytes])
        self._rest = None
        return bytes(chunk) if isinstance(chunk, memoryview) else chunk

    async def aclose(self) -> None:
        self._closed = True
        await self._stream.aclose()

    async def _fail(self, error: SecurityError | ConnectionLost) -> None:
        self._error = error
        await trio.aclose_forcefully(self._stream)

    def _check_usable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._error is not None:
            raise self._error
