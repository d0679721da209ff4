"""Securities that break one rule each: Noise, with one thing in it gone wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import ClassVar

import trio

from p2pnet.core.env import Env
from p2pnet.core.keys import PrivateKey
from p2pnet.core.peer_id import PeerId
from p2pnet.errors import ConnectionLost, ProtocolError, SecurityError, StreamTampered
from p2pnet.interfaces import Kit, Part, Role, Secured
from p2pnet.security.noise import Noise, NoiseSecurity
from p2pnet.security.noise.cipher import (
    TAG_BYTES,
    CipherState,
    Opener,
    Readable,
)
from p2pnet.security.noise.driver import NoiseStream


class Security(NoiseSecurity):
    """What a saboteur changes: each of these does as Noise does."""

    def __init__(self, config: Noise, *, env: Env, key: PrivateKey) -> None:
        super().__init__(config, env=env, key=key)
        self.key = key

    async def secure(
        self,
        stream: trio.abc.Stream,
        role: Role,
        *,
        expected: PeerId | None,
        muxers: Sequence[str],
    ) -> Secured:
        raw = self.below(stream)
        secured = await self.handshake(raw, role, expected, muxers)
        assert isinstance(secured.stream, NoiseStream)
        secured.stream._stream = stream
        self.spoil(secured.stream)
        return self.report(secured, role)

    def below(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return stream

    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        return await super().secure(raw, role, expected=expected, muxers=muxers)

    def spoil(self, stream: NoiseStream) -> None:
        """Change the secured stream."""

    def report(self, secured: Secured, role: Role) -> Secured:
        return secured


@dataclass(frozen=True)
class Sabotaged:
    """A part that builds another security than it should."""

    security: type[Security]

    def build(self, kit: Kit) -> Security:
        return self.security(Noise(), env=kit.env, key=kit.key)


class Below(trio.abc.Stream):
    """A raw stream as a saboteur sees it during the handshake."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self.stream.receive_some(max_bytes))
        self.received += data
        return data

    async def aclose(self) -> None:
        await self.stream.aclose()


# ---- handshakes --------------------------------------------------------------------------


class Nameless(Security):
    protocol_id = "noise"


class HashesEveryKey(Security):
    """Names even those by a hash whose name is their key."""

    def report(self, secured: Secured, role: Role) -> Secured:
        digest = sha256(secured.remote_key.encode()).digest()
        return replace(secured, peer_id=PeerId(b"\x12\x20" + digest))


class TakesAnybody(Security):
    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        return await super().handshake(raw, role, None, muxers)


class KeepsTheMuxerToItself(Security):
    def report(self, secured: Secured, role: Role) -> Secured:
        return replace(secured, muxer=None) if role is Role.LISTENER else secured


class BothGreetFirst(Security):
    """Both ends send a byte before they read one."""

    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        try:
            await raw.send_all(b"!")
            if await raw.receive_some(1) != b"!":
                raise ProtocolError("/noise", "no greeting")
        except BaseException:
            await trio.aclose_forcefully(raw)
            raise
        return await super().handshake(raw, role, expected, muxers)


class Greedy(Below):
    """Reads whatever is there, and shows as much as was asked for."""

    rest = b""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if not self.rest:
            self.rest = bytes(await self.stream.receive_some())
        data, self.rest = self.rest[:max_bytes], self.rest[max_bytes:]
        return data


class ReadsTooFar(Security):
    """What was read behind the handshake is lost."""

    def below(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return Greedy(stream)


class StumblesOverHalfALength(Security):
    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        try:
            return await super().handshake(raw, role, expected, muxers)
        except SecurityError:
            assert isinstance(raw, Below)
            if len(raw.received) == 1:
                raise IndexError("unpack requires a buffer of 2 bytes") from None
            raise

    def below(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return Below(stream)


class Forgiving(Below):
    """Takes the first byte for the zero it must be."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        is_first = not self.received
        data = await super().receive_some(max_bytes)
        return b"\0" + data[1:] if is_first and data else data


class IgnoresAByte(Security):
    """Some byte of what a listener reads may be anything."""

    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        if role is Role.LISTENER:
            raw = Forgiving(raw)
        return await super().handshake(raw, role, expected, muxers)


class StumblesOverHttp(Security):
    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        try:
            return await super().handshake(raw, role, expected, muxers)
        except (ProtocolError, SecurityError):
            assert isinstance(raw, Below)
            if raw.received.startswith(b"HT"):
                raise KeyError("HT") from None
            raise

    def below(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return Below(stream)


class Unclosable(Below):
    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class LeavesWhenCancelled(Security):
    """A cancelled handshake leaves the raw stream open."""

    def below(self, stream: trio.abc.Stream) -> trio.abc.Stream:
        return Unclosable(stream)

    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        try:
            return await super().handshake(raw, role, expected, muxers)
        except Exception:
            assert isinstance(raw, Below)
            await trio.aclose_forcefully(raw.stream)
            raise


class ListenerWithoutChance(Security):
    """Each handshake of a listener is like the last one."""

    async def handshake(
        self, raw: trio.abc.Stream, role: Role, expected: PeerId | None, muxers: Sequence[str]
    ) -> Secured:
        if role is Role.DIALER:
            return await super().handshake(raw, role, expected, muxers)
        env = replace(self._env, random_bytes=lambda count: b"\1" * count)
        listener = NoiseSecurity(Noise(), env=env, key=self.key)
        return await listener.secure(raw, role, expected=expected, muxers=muxers)


# ---- secured streams ---------------------------------------------------------------------


class Spoiled(Security):
    """Its streams are of another type."""

    stream_type: ClassVar[type[NoiseStream]]

    def spoil(self, stream: NoiseStream) -> None:
        stream.__class__ = self.stream_type


class DamagesMuch(NoiseStream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) > 500_000:
            data = bytearray(data)
            data[400_000] ^= 1
        await super().send_all(data)


class LosesABlock(NoiseStream):
    """A write of exactly one block is forgotten."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) != 64:
            await super().send_all(data)


class TakesZero(NoiseStream):
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await super().receive_some(max_bytes or None)


class EndsOnce(NoiseStream):
    """Who reads on after the end is told of a loss."""

    has_ended = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if self.has_ended:
            raise ConnectionLost("it has ended already")
        data = await super().receive_some(max_bytes)
        self.has_ended = not data
        return data


class EndsWithinALength(NoiseStream):
    """The first byte of a length, and then nothing, is a clean end."""

    async def _receive(self) -> bytearray:
        try:
            return await super()._receive()
        except ConnectionLost:
            if len(self._opener._partial) == 1:
                return bytearray()
            raise


def spoiled(kind: type[NoiseStream]) -> Sabotaged:
    return Sabotaged(type(kind.__name__, (Spoiled,), {"stream_type": kind}))


# ---- ciphers -----------------------------------------------------------------------------


class Cipher(CipherState):
    """A cipher state of a saboteur, made of a genuine one."""

    __slots__ = ()

    @classmethod
    def of(cls, genuine: CipherState) -> Cipher:
        cipher = cls(bytes(32))
        cipher._cipher, cipher._nonce = genuine._cipher, genuine._nonce
        return cipher

    def opens(self, sealed: Readable, plaintext: memoryview, nonce: int) -> bool:
        """Try a nonce; if it fits, the next one is due."""
        due, self._nonce = self._nonce, nonce
        try:
            super().open_into(sealed, plaintext)
        except StreamTampered:
            self._nonce = due
            return False
        return True


class SignsOnly(Cipher):
    """A tag, and before it the plaintext as it is."""

    __slots__ = ()

    def seal_into(self, plaintext: Readable, sealed: memoryview) -> None:
        sealed[:-TAG_BYTES] = plaintext
        sealed[-TAG_BYTES:] = self.seal(plaintext, b"")[-TAG_BYTES:]

    def open_into(self, sealed: Readable, plaintext: memoryview) -> None:
        tag = self.seal(sealed[:-TAG_BYTES], b"")[-TAG_BYTES:]
        if tag != sealed[-TAG_BYTES:]:
            raise StreamTampered("the tag is wrong")
        plaintext[:] = sealed[:-TAG_BYTES]


class KnownKey(Cipher):
    """The same key in all sessions, built in."""

    __slots__ = ()

    @classmethod
    def of(cls, genuine: CipherState) -> Cipher:
        return cls(b"\7" * 32)


class ShortTag(Cipher):
    """One byte of the tag is not compared."""

    __slots__ = ()

    def open_into(self, sealed: Readable, plaintext: memoryview) -> None:
        if self.opens(sealed, plaintext, self._nonce):
            return
        for last in range(256):
            if self.opens(bytes(sealed[:-1]) + bytes([last]), plaintext, self._nonce):
                return
        raise StreamTampered("the tag is wrong")


class TakesTwice(Cipher):
    """The last message may come again."""

    __slots__ = ()

    def open_into(self, sealed: Readable, plaintext: memoryview) -> None:
        if not self.opens(sealed, plaintext, self._nonce) and not (
            self._nonce and self.opens(sealed, plaintext, self._nonce - 1)
        ):
            raise StreamTampered("the tag is wrong")


class ToleratesAGap(Cipher):
    """After the first message one may be missing."""

    __slots__ = ()

    def open_into(self, sealed: Readable, plaintext: memoryview) -> None:
        if not self.opens(sealed, plaintext, self._nonce) and not (
            self._nonce and self.opens(sealed, plaintext, self._nonce + 1)
        ):
            raise StreamTampered("the tag is wrong")


class Sorts(Opener):
    """Messages that come together may come in any order."""

    def open(self, data: bytes | bytearray) -> bytearray:
        nonce = self._cipher._nonce
        try:
            return super().open(data)
        except StreamTampered:
            self._cipher._nonce = nonce
            first = 2 + int.from_bytes(data[:2])
            return super().open(data[first:] + data[:first])


def with_cipher(kind: type[Cipher]) -> Sabotaged:
    def spoil(_: Security, stream: NoiseStream) -> None:
        stream._sealer._cipher = kind.of(stream._sealer._cipher)
        stream._opener._cipher = kind.of(stream._opener._cipher)

    return Sabotaged(type(kind.__name__, (Security,), {"spoil": spoil}))


class SortsMessages(Security):
    def spoil(self, stream: NoiseStream) -> None:
        stream._opener = Sorts(stream._opener._cipher)


SABOTEURS: dict[str, Part[NoiseSecurity]] = {
    "protocol-id": Sabotaged(Nameless),
    "identity": Sabotaged(HashesEveryKey),
    "expected-peer": Sabotaged(TakesAnybody),
    "early-muxer": Sabotaged(KeepsTheMuxerToItself),
    "no-buffers": Sabotaged(BothGreetFirst),
    "read-ahead": Sabotaged(ReadsTooFar),
    "cut-handshake": Sabotaged(StumblesOverHalfALength),
    "changed-handshake": Sabotaged(IgnoresAByte),
    "garbage": Sabotaged(StumblesOverHttp),
    "cancelled-handshake": Sabotaged(LeavesWhenCancelled),
    "big-data": spoiled(DamagesMuch),
    "pieces": spoiled(LosesABlock),
    "trio-stream": spoiled(TakesZero),
    "clean-end": spoiled(EndsOnce),
    "recorded-peer": Sabotaged(ListenerWithoutChance),
    "secrecy": with_cipher(SignsOnly),
    "freshness": with_cipher(KnownKey),
    "changed-message": with_cipher(ShortTag),
    "repeated-message": with_cipher(TakesTwice),
    "disorder": Sabotaged(SortsMessages),
    "missing-message": with_cipher(ToleratesAGap),
    "cut-message": spoiled(EndsWithinALength),
}
