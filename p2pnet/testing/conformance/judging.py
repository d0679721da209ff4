"""How a case is judged: what it promises, what happened, and all failures in one error."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

import trio

from p2pnet.core.tasks import bare_exceptions
from p2pnet.errors import describe

PATIENCE = 30.0
"""Seconds until a case that hangs is given up; with trio's MockClock they cost no time."""


class ConformanceFailure(AssertionError):
    """A plug-in breaks a rule.

    ``part`` is the plug-in, ``rule`` the name of the case, ``text`` what was expected and what
    happened; the cause is the error behind it. If several rules are broken, ``rule`` names
    them all, and ``failures`` holds one of these for each.
    """

    def __init__(
        self, part: object, rule: str, text: str, failures: Sequence[ConformanceFailure] = ()
    ) -> None:
        super().__init__(f"{part!r} breaks {rule}: {text}")
        self.part = part
        self.rule = rule
        self.text = text
        self.failures = tuple(failures) or (self,)

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of all broken rules."""
        return tuple(failure.rule for failure in self.failures)


class Broken(AssertionError):
    """What a case found to be wrong, in words."""


def expect(condition: object, otherwise: str) -> None:
    if not condition:
        raise Broken(otherwise)


@contextmanager
def expect_raises(*errors: type[BaseException], by: str) -> Generator[None, None, None]:
    """Make sure that the block, which does what ``by`` says, raises one of ``errors``."""
    try:
        yield
    except errors:
        return
    except AssertionError:
        raise
    except Exception as error:
        raise Broken(f"{by} raised {named(error)}, not {one_of(errors)}") from error
    raise Broken(f"{by} raised nothing, where {one_of(errors)} was due")


def named(error: BaseException) -> str:
    text = describe(error)
    name = type(error).__name__
    return text if text.startswith(name) else f"{name}: {text}"


def one_of(errors: Sequence[type[BaseException]]) -> str:
    return " or ".join(error.__name__ for error in errors)


async def outcome(action: Callable[[], Awaitable[object]]) -> Exception | None:
    """Return the error of an action, whatever it is: none is too strange to be reported."""
    try:
        with bare_exceptions():
            await action()
    except Exception as error:  # noqa: BLE001
        return error
    return None


async def judge(part: object, rule: str, promise: str, case: Callable[[], Awaitable[None]]) -> None:
    """Run one case. Raises ConformanceFailure if it breaks, or takes too long."""
    error: Exception | None = None
    with trio.move_on_after(PATIENCE) as scope:
        error = await outcome(case)
    if scope.cancelled_caught:
        raise ConformanceFailure(part, rule, f"{promise} But it hangs.")
    match error:
        case None:
            return
        case Broken():
            what, cause = str(error), error.__cause__
        case AssertionError():
            what, cause = f"trio's check failed: {error}", error
        case _:
            what, cause = f"there was {named(error)}", error
    raise ConformanceFailure(part, rule, f"{promise} But {what}.") from cause


async def judge_all(part: object, checks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run all checks, and only then raise: one error for all that failed."""
    failures: list[ConformanceFailure] = []
    for check in checks:
        try:
            await check()
        except ConformanceFailure as failure:
            failures.append(failure)
    if not failures:
        return
    rules = ", ".join(failure.rule for failure in failures)
    text = "\n".join(f"\n  {failure.rule}: {failure.text}" for failure in failures)
    raise ConformanceFailure(part, rules, text, failures) from ExceptionGroup(rules, failures)


def promise_of(case: object) -> str:
    """Return what a case demands: the first paragraph of its docstring."""
    return " ".join((inspect.getdoc(case) or "").partition("\n\n")[0].split())


def pattern(name: str, size: int) -> bytes:
    """Return bytes that are the same in every run, differ by name, and repeat nowhere."""
    return hashlib.shake_256(name.encode()).digest(size)
