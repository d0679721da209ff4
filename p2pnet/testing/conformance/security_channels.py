"""Cases for securities: the secured stream, and what an attacker can do to it."""

from __future__ import annotations

import trio
import trio.testing

from p2pnet.testing.conformance.judging import expect, pattern
from p2pnet.testing.conformance.security_bench import LOSSES, TYPED, SecurityBench
from p2pnet.testing.conformance.security_handshakes import bit_at
from p2pnet.testing.conformance.wires import read_exactly

MIB = 1_048_576
MARKER = pattern("marker", 24)
TEXT = b"Attack at dawn, by the western gate."


async def carries_both_ways(bench: SecurityBench) -> None:
    """A MiB each way at once arrives unchanged, however the raw stream cuts it."""
    for most in (None, 3001):
        channel = await bench.channel(most=most)
        there, back = pattern("there", MIB), pattern("back", MIB)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.sender.send_all, there)
            nursery.start_soon(channel.receiver.send_all, back)
            nursery.start_soon(expect_data, channel.receiver, there, 4001)
            nursery.start_soon(expect_data, channel.sender, back, None)


async def expect_data(stream: trio.abc.ReceiveStream, data: bytes, most: int | None) -> None:
    expect(await read_exactly(stream, len(data), most) == data, "some bytes were changed")


async def carries_pieces(bench: SecurityBench) -> None:
    """Writes of all sizes arrive in order, even if the raw stream gives a byte at a time."""
    channel = await bench.channel(most=1)
    data = pattern("pieces", 1000)
    at = 0
    for size in range(0, 80, 4):
        await channel.sender.send_all(data[at : at + size])
        at += size
    await expect_data(channel.receiver, data[:at], None)


async def is_a_trio_stream(bench: SecurityBench) -> None:
    """The secured stream passes trio's own check of two-way streams."""

    async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
        channel = await bench.channel()
        return channel.sender, channel.receiver

    await trio.testing.check_two_way_stream(make, None)


async def ends_cleanly(bench: SecurityBench) -> None:
    """After the remote has closed, all that it sent can be read, and then the end."""
    channel = await bench.channel()
    await channel.sender.send_all(TEXT)
    await channel.sender.aclose()
    expect(channel.senders.is_closed, "closing it left the raw stream open")
    await expect_data(channel.receiver, TEXT, None)
    for _ in range(2):
        expect(await channel.receiver.receive_some() == b"", "something came after everything")


async def hides_what_it_carries(bench: SecurityBench) -> None:
    """Nothing of what is sent can be read on the wire."""
    channel = await bench.channel()
    for sender, receiver in (
        (channel.sender, channel.receiver),
        (channel.receiver, channel.sender),
    ):
        for text in (MARKER, MARKER * 4000):
            await sender.send_all(text)
            await expect_data(receiver, text, None)
    for wire in (channel.senders, channel.receivers):
        expect(MARKER[:8] not in wire.sent, "it is there for all to read")


async def same_text_looks_different(bench: SecurityBench) -> None:
    """The same text never looks the same on the wire, nor in another session of the same peers."""
    seen: list[bytes] = []
    for _ in range(2):
        seen += await (await bench.channel()).hold(TEXT, TEXT)
    expect(len(set(seen)) == len(seen), "two of them are alike")


async def changes_are_noticed(bench: SecurityBench) -> None:
    """A message of which any byte was changed is refused, and nothing of it is handed out."""
    (raw,) = await (await bench.channel()).hold(TEXT)
    for place in range(len(raw)):
        await expect_change_refused(bench, place, place + 1)
    await expect_change_refused(bench, len(raw) // 2, len(raw))


async def expect_change_refused(bench: SecurityBench, start: int, stop: int) -> None:
    channel = await bench.channel()
    (raw,) = await channel.hold(TEXT)
    flipped = bytes(
        byte ^ (bit_at(at, at) if start <= at < stop else 0) for at, byte in enumerate(raw)
    )
    # What was a length may now promise more than there is.
    errors = LOSSES if start + 1 == stop else LOSSES[:2]
    await channel.expect_refusal(flipped, f"a message changed at byte {start}", errors)


async def repetitions_are_noticed(bench: SecurityBench) -> None:
    """A message that comes a second time is refused."""
    channel = await bench.channel()
    (raw,) = await channel.hold(TEXT)
    await channel.senders.inject(raw)
    await expect_data(channel.receiver, TEXT, None)
    await channel.expect_refusal(raw, "a message for the second time")


async def disorder_is_noticed(bench: SecurityBench) -> None:
    """Messages that come in another order are refused."""
    channel = await bench.channel()
    first, second = await channel.hold(TEXT, b"The second message")
    await channel.expect_refusal(second + first, "the second message before the first")


async def gaps_are_noticed(bench: SecurityBench) -> None:
    """A message before which another is missing is refused."""
    channel = await bench.channel()
    first, second, third = await channel.hold(TEXT, b"lost", b"The third message")
    expect(second, "nothing was sent for some bytes")
    await channel.senders.inject(first)
    await expect_data(channel.receiver, TEXT, None)
    await channel.expect_refusal(third, "the third message after the first")


async def cut_messages_are_noticed(bench: SecurityBench) -> None:
    """A message that is cut off within is no clean end, and nothing of it is handed out."""
    (raw,) = await (await bench.channel()).hold(TEXT)
    for count in range(1, len(raw)):
        channel = await bench.channel()
        (raw,) = await channel.hold(TEXT)
        what = f"{count} bytes of a message"
        await channel.expect_refusal(raw[:count], what, TYPED)
