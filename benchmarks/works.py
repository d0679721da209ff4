"""What is measured: the works that peers are asked to do, and the figures they give."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

MIB = 1024 * 1024
GB = 1e9


@dataclass(frozen=True, slots=True)
class Figure:
    """A number in the tables."""

    title: str
    unit: str
    more_is_better: bool = False


FIGURES = {
    "upload": Figure("one stream, up", "MiB/s", more_is_better=True),
    "download": Figure("one stream, down", "MiB/s", more_is_better=True),
    "both": Figure("both ways at once, sum", "MiB/s", more_is_better=True),
    "ten": Figure("ten streams at once, up", "MiB/s", more_is_better=True),
    "cpu_per_gb": Figure("processor, both ends, one stream up", "s/GB"),
    "client_cpu_per_gb": Figure("… of that the sender", "s/GB"),
    "echo_p50": Figure("32-byte echo, median", "µs"),
    "echo_p99": Figure("32-byte echo, 99 of 100 within", "µs"),
    "streams": Figure("open, 32-byte echo, close, one at a time", "/s", more_is_better=True),
    "streams_32": Figure("open, 32-byte echo, close, 32 at a time", "/s", more_is_better=True),
    "dial": Figure("dial, secure, multiplex, identify", "/s", more_is_better=True),
    "server_kb": Figure("memory of an idle connection, listener", "kB"),
    "client_kb": Figure("memory of an idle connection, dialler", "kB"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of a work."""

    amount: int
    seconds: float
    times: list[float]
    client_cpu: float
    server_cpu: float


@dataclass(frozen=True, slots=True)
class Work:
    """Something to ask a driver for, again and again."""

    name: str
    request: dict[str, object] = field(default_factory=dict)
    least: int = 100
    """Of bytes or turns: the first try, which tells how many take the time that is wanted."""

    @property
    def is_bulk(self) -> bool:
        return self.request["work"] in ("upload", "download", "both")

    def figures(self, sample: Sample) -> dict[str, float]:
        rate = sample.amount / sample.seconds
        if self.name == "echo":
            return {
                "echo_p50": quantile(sample.times, 0.5),
                "echo_p99": quantile(sample.times, 0.99),
            }
        if self.is_bulk:
            rate /= MIB
        values = {self.name: rate}
        if self.name == "upload":
            per_gb = GB / sample.amount
            values["cpu_per_gb"] = (sample.client_cpu + sample.server_cpu) * per_gb
            values["client_cpu_per_gb"] = sample.client_cpu * per_gb
        return values


def quantile(times: list[float], part: float) -> float:
    """Microseconds that are enough for such a part of the turns."""
    return statistics.quantiles(times, n=100, method="inclusive")[round(part * 100) - 1] * 1e6


WORKS = (
    Work("upload", {"work": "upload", "streams": 1}, 4 * MIB),
    Work("download", {"work": "download", "streams": 1}, 4 * MIB),
    Work("both", {"work": "both"}, 4 * MIB),
    Work("ten", {"work": "upload", "streams": 10}, 4 * MIB),
    Work("echo", {"work": "echo"}, 200),
    Work("streams", {"work": "streams", "streams": 1}, 50),
    Work("streams_32", {"work": "streams", "streams": 32}, 64),
    Work("dial", {"work": "dial"}, 10),
)
