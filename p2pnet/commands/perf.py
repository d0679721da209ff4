"""``p2pnet perf``: send bytes to a peer, have some sent back, and tell how fast that was."""

from __future__ import annotations

import sys

import trio

from p2pnet.commands.asking import connect_direct
from p2pnet.commands.output import CommandError, Output
from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import LimitedConnection, PeerLeft, StreamReset
from p2pnet.host.host import Host
from p2pnet.interfaces import Target
from p2pnet.protocols.perf import Figures, Perf, Progress

TELL_INTERVAL = 1.0
"""Seconds between two ``perf_progress`` events."""
DRAW_INTERVAL = 0.2
BAR_WIDTH = 30
CLEAR = "\r\x1b[K"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
FACTORS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
MAX_BYTES = 2**64 - 1


class PerfRefused(CommandError):
    """The peer does not measure with us."""


async def perf(
    host: Host,
    target: Target,
    output: Output,
    *,
    upload: int,
    download: int,
    direct_seconds: float,
) -> int:
    """Measure one run, over a direct connection or a relay without limits."""
    if direct_seconds > 0:
        connection = await connect_direct(host, target, output, seconds=direct_seconds)
    else:
        connection = await host.connect(target)
    meter = Meter(upload, download, output)
    try:
        with bare_exceptions():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(meter.run)
                figures = await host.service(Perf).measure(
                    connection, upload=upload, download=download, report=meter.take
                )
                nursery.cancel_scope.cancel()
    except LimitedConnection:
        remedy = "wait for a direct connection first, with --direct SECONDS"
        raise PerfRefused("over a relay with limits nothing is measured", remedy) from None
    except (StreamReset, PeerLeft) as reset:
        remedy = "ask who runs it for its limits, and to put you on its list, if it has one"
        raise PerfRefused(f"the peer broke it off: {reset}", remedy) from None
    finally:
        meter.clear()
    peer, relayed = str(connection.peer_id), connection.is_relayed
    output.event(
        "perf",
        in_words(figures),
        peer=peer,
        relayed=relayed,
        uploaded=figures.uploaded,
        downloaded=figures.downloaded,
        seconds=round(figures.seconds, 6),
        upload_seconds=round(figures.upload_seconds, 6),
        download_seconds=round(figures.download_seconds, 6),
    )
    return 0


class Meter:
    """Shows how far a run is: JSON once a second, or a bar where stderr is a terminal."""

    def __init__(self, upload: int, download: int, output: Output) -> None:
        self._wanted = Progress(upload, download)
        self._now = self._told = Progress()
        self._output = output
        self._draws = not output.as_json and sys.stderr is not None and sys.stderr.isatty()

    def take(self, progress: Progress) -> None:
        self._now = progress

    async def run(self) -> None:
        began = trio.current_time()
        interval = DRAW_INTERVAL if self._draws else TELL_INTERVAL
        while True:
            await trio.sleep(interval)
            now, told = self._now, self._told
            self._told = now
            if self._output.as_json:
                self._output.event(
                    "perf_progress",
                    "",
                    seconds=round(trio.current_time() - began, 3),
                    uploaded=now.uploaded - told.uploaded,
                    downloaded=now.downloaded - told.downloaded,
                )
            elif self._draws:
                self._draw(now, told, interval)

    def _draw(self, now: Progress, told: Progress, interval: float) -> None:
        arrow, done, before, wanted = "up  ", now.uploaded, told.uploaded, self._wanted.uploaded
        if done == wanted:
            arrow, done, before = "down", now.downloaded, told.downloaded
            wanted = self._wanted.downloaded
        filled = BAR_WIDTH * done // wanted if wanted else BAR_WIDTH
        bar = "#" * filled + "." * (BAR_WIDTH - filled)
        speed = size_in_words((done - before) / interval)
        print(f"{CLEAR}{arrow} [{bar}] {speed}/s", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leave the line of the bar empty."""
        if self._draws:
            print(CLEAR, end="", file=sys.stderr, flush=True)


def in_words(figures: Figures) -> str:
    ways = (
        ("up  ", figures.uploaded, figures.upload_seconds, figures.upload_rate),
        ("down", figures.downloaded, figures.download_seconds, figures.download_rate),
    )
    lines = [
        f"{way} {size_in_words(count)} in {seconds:.3f} s: {size_in_words(speed)}/s"
        for way, count, seconds, speed in ways
        if speed is not None
    ]
    return "\n".join(lines) or f"nothing, in {figures.seconds:.3f} s"


def size_in_words(count: float) -> str:
    for unit in UNITS[:-1]:
        if count < 1000:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} {UNITS[-1]}"


def size_in_bytes(text: str) -> int:
    """Read a number of bytes such as 64MiB, 10kB or 4096.

    Raises:
        ValueError: if it is none, or beyond 64 bits.
    """
    digits = text.rstrip("bBiIkKmMgGtT ")
    unit = text[len(digits) :].strip().lower()
    if not (digits.isascii() and digits.isdigit() and unit in FACTORS):
        raise ValueError(f"{text} is no number of bytes, such as 4096, 10kB or 64MiB")
    count = int(digits[:30]) * FACTORS[unit]
    if count > MAX_BYTES or len(digits) > 30:
        raise ValueError(f"{text} is more than 2^64 - 1 bytes")
    return count
