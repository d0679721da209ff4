from __future__ import annotations

import logging

import pytest
import trio
from trio.testing import MockClock

from p2pnet.core.complaints import BURST, INTERVAL, complain

logger = logging.getLogger("p2pnet.test")


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, "p2pnet.test")
    return caplog


async def test_few_complaints_are_warnings(log: pytest.LogCaptureFixture) -> None:
    for number in range(BURST):
        complain(logger, f"{number}")
    assert {record.levelno for record in log.records} == {logging.WARNING}
    assert log.records[-1].getMessage() == f"misbehaving peer: {BURST - 1}"


async def test_too_many_complaints_are_told_at_debug_and_counted(
    log: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    for _ in range(BURST + 1000):
        complain(logger, "it")
    assert [record.levelno for record in log.records[BURST:]] == [logging.DEBUG] * 1000
    await trio.sleep(INTERVAL)
    complain(logger, "again")
    complain(logger, "and again")
    last = [(record.levelno, record.getMessage()) for record in log.records[BURST + 1000 :]]
    assert last == [
        (logging.WARNING, "1000 more complaints about peers were logged at DEBUG"),
        (logging.WARNING, "misbehaving peer: again"),
        (logging.DEBUG, "misbehaving peer: and again"),
    ]
