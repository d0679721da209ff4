"""For pytest: the fixture ``world``, and a report of the packets when a test fails.

Load it in a ``conftest.py`` with ``pytest_plugins = ["p2pnet.testing.pytest_plugin"]``; it
needs pytest-trio. The seed of a test is that of its mark ``@pytest.mark.seed(7)``, or of
``--world-seed``, or 0.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from typing import TypeVar

import pytest
import trio
from trio.abc import Clock, Instrument
from trio.testing import MockClock

from p2pnet.testing.world import World

T = TypeVar("T")
THE_WORLD = pytest.StashKey[World]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--world-seed", type=int, default=0, help="seed of simulated worlds")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "seed(number): the seed of the simulated world of a test")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what uses ``world`` in virtual time; pytest-trio asks for a clock by name only."""
    for item in items:
        if "world" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.trio(run=run_in_virtual_time), append=False)


def run_in_virtual_time(
    main: Callable[[], Awaitable[T]], *, clock: Clock | None, instruments: Sequence[Instrument]
) -> T:
    virtual = clock or MockClock(autojump_threshold=0)
    return trio.run(main, clock=virtual, instruments=instruments)


@pytest.fixture
async def world(request: pytest.FixtureRequest) -> AsyncGenerator[World]:
    """Give a simulated internet, at the end of which nothing may be left."""
    marker = request.node.get_closest_marker("seed")
    seed = marker.args[0] if marker is not None else request.config.getoption("--world-seed")
    async with World(seed) as made:
        request.node.stash[THE_WORLD] = made
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    made = item.stash.get(THE_WORLD, None)
    if report.failed and made is not None:
        report.sections.append((f"World(seed={made.seed})", made.story()))
    return report
