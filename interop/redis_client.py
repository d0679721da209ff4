"""As much of a Redis client as the contracts of other projects' test runners need."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

Reply = str | int | None | list["Reply"]

DEFAULT_PORT = 6379
RETRY_SECONDS = 0.2


class RedisError(Exception):
    """Redis refused a command, or said what this client does not understand."""


class Redis:
    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._unread = b""

    async def call(self, *words: str) -> Reply:
        """Send a command, and return what Redis replies."""
        bulks = [b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words]
        await self._stream.send_all(b"*%d\r\n" % len(bulks) + b"".join(bulks))
        return await self._reply()

    async def _reply(self) -> Reply:
        line = await self._line()
        kind, text = line[:1], line[1:].decode()
        match kind:
            case b"+":
                return text
            case b":":
                return int(text)
            case b"-":
                raise RedisError(text)
            case b"$" if int(text) < 0:
                return None
            case b"$":
                return (await self._bytes(int(text) + 2))[:-2].decode()
            case b"*" if int(text) < 0:
                return None
            case b"*":
                return [await self._reply() for _ in range(int(text))]
        raise RedisError(f"no reply begins with {kind!r}")

    async def _line(self) -> bytes:
        while b"\r\n" not in self._unread:
            await self._more()
        line, _, self._unread = self._unread.partition(b"\r\n")
        return line

    async def _bytes(self, count: int) -> bytes:
        while len(self._unread) < count:
            await self._more()
        taken, self._unread = self._unread[:count], self._unread[count:]
        return taken

    async def _more(self) -> None:
        chunk = await self._stream.receive_some()
        if not chunk:
            raise RedisError("Redis closed the connection")
        self._unread += chunk


@asynccontextmanager
async def open_redis(address: str) -> AsyncGenerator[Redis, None]:
    """Connect to ``host:port``, as often as it takes until Redis is there."""
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
    stream = None
    while stream is None:
        try:
            stream = await trio.open_tcp_stream(host, int(port or DEFAULT_PORT))
        except OSError:
            await trio.sleep(RETRY_SECONDS)
    async with stream:
        yield Redis(stream)
