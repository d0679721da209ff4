"""Peers as processes: ask them, and read from outside what they cost."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

START_SECONDS = 120.0
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class PeerFailed(Exception):
    """A peer ended, kept silent, or told an error."""


def processor_seconds(pid: int) -> float:
    """Return what a process has used until now, in user and in system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Peer:
    """One end of a measurement. Its settings and lines stand in peers/README.md."""

    def __init__(self, command: Sequence[str], settings: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._read = b""
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **settings},
                bufsize=0,
            )
        try:
            ready = self._line(START_SECONDS)
        except PeerFailed:
            self.close()
            raise
        self.version: str = ready["version"]
        self.addresses: list[str] = ready["addresses"]

    def ask(self, request: Mapping[str, object], seconds: float) -> dict:
        """Have something done, within so many seconds.

        Raises:
            PeerFailed: if it was not.
        """
        if self._process.stdin is None:
            raise PeerFailed("it has no stdin")
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise PeerFailed(f"it has ended: {self._last_words()}") from None
        answer = self._line(seconds)
        if answer.get("error"):
            raise PeerFailed(answer["error"])
        return answer

    def _line(self, seconds: float) -> dict:
        if self._process.stdout is None:
            raise PeerFailed("it has no stdout")
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._process.stdout], [], [], left)[0]:
                raise PeerFailed(f"it said nothing for {seconds:.0f} s")
            data = os.read(self._process.stdout.fileno(), 1 << 20)
            if not data:
                raise PeerFailed(f"it has ended: {self._last_words()}")
            self._read += data
        line, _, self._read = self._read.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        return self._log.read_text(errors="replace").strip()[-300:]

    def processor_seconds(self) -> float:
        return processor_seconds(self._process.pid)

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
