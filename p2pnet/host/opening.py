"""The root of everything that runs: ``open_host``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

from p2pnet.core.tasks import bare_exceptions
from p2pnet.host.config import HostConfig
from p2pnet.host.host import Host


@asynccontextmanager
async def open_host(
    config: HostConfig, *, before: Callable[[Host], object] | None = None
) -> AsyncGenerator[Host, None]:
    """Run a host for as long as the block lasts.

    Its ports are bound and its services run when the block begins. Leaving the block says
    goodbye to all peers (within ``SwarmConfig.goodbye_timeout``) and ends everything. An
    exception of the block leaves it as it is, not in a group. When the block begins, a service may
    have had its first success already: who subscribes in ``before``, which is called with the
    host before anything runs, misses no event.

    Raises:
        OSError: if a listen address is taken.
        AddressUnsupported, ValueError: if a listen address makes no sense.
    """
    with bare_exceptions():
        async with trio.open_nursery() as root:
            host = Host(config)
            if before is not None:
                before(host)
            await root.start(_run, host)
            try:
                yield host
            finally:
                host.stop()


async def _run(host: Host, *, task_status: trio.TaskStatus[None]) -> None:
    await host.run(task_status=task_status)
