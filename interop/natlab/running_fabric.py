"""The router program, run by another: start it, tell it what to do, end it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from p2pnet.demo.private_world import LaboratoryError

ROOT: Final = Path(__file__).parents[2]
PATIENCE: Final = 20.0  # Seconds for an answer; starting is the longest.

Answer = dict[str, object]


class RunningFabric:
    """A router that runs for as long as the block lasts; ``statistics`` are there afterwards.

    Args:
        options: Those of the program, such as ``("--inside", "lan", ...)``.
        placed: Gives the command that runs another in the router's namespace.

    Raises:
        LaboratoryError: On entering: it did not get ready; the text says why.
    """

    def __init__(
        self, options: Sequence[str], *, placed: Callable[[Sequence[str]], list[str]]
    ) -> None:
        self.statistics: dict[str, int] = {}
        self._command = placed([sys.executable, "-m", "interop.natlab.fabric", *options])
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # An interrupt from the terminal is not meant for it.
        )
        try:
            self._answer()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                self.statistics = self._counts(self.tell("quit"))
        finally:
            self._end()

    def tell(self, line: str) -> Answer:
        """Have a command carried out, such as ``rebind 11.0.1.9``; give what it answers.

        Raises:
            LaboratoryError: It could not be carried out.
        """
        if self._process is None or self._process.stdin is None:
            raise LaboratoryError("the router does not run")
        os.write(self._process.stdin.fileno(), line.encode() + b"\n")
        return self._answer()

    def count(self) -> dict[str, int]:
        """Give the statistics so far."""
        return self._counts(self.tell("statistics"))

    def _answer(self) -> Answer:
        if self._process is None or self._process.stdout is None:
            raise LaboratoryError("the router does not run")
        output = self._process.stdout.fileno()
        while b"\n" not in self._said:
            readable, _, _ = select.select([output], [], [], PATIENCE)
            arrived = os.read(output, 4096) if readable else b""
            if not arrived:
                raise LaboratoryError(f"the router says nothing: {self._end()}")
            self._said += arrived
        line, _, self._said = self._said.partition(b"\n")
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise LaboratoryError(str(answer["error"]))
        return answer

    def _counts(self, answer: Answer) -> dict[str, int]:
        counts = answer["statistics"]
        if not isinstance(counts, dict):
            raise LaboratoryError(f"no statistics: {answer}")
        return {str(name): int(count) for name, count in counts.items()}

    def _end(self) -> str:
        """End the program, and give what it said on standard error."""
        if self._process is None:
            return ""
        process, self._process = self._process, None
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            _, errors = process.communicate()
        return errors.decode(errors="replace").strip()
