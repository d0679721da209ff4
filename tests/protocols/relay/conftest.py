"""What the tests of the relay's services share: the world of the folder above, with their hosts."""

from __future__ import annotations

import pytest

from tests.protocols.memory_world import MemoryWorld
from tests.protocols.relay.fakes import FakeNet


@pytest.fixture
async def net(world: MemoryWorld) -> FakeNet:
    return FakeNet(world.nursery)
