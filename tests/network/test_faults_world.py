"""The world itself: it ends deadlocks, finds what is left, repeats itself, and explains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from p2pnet.core.addresses import Endpoint
from p2pnet.testing.running import run
from p2pnet.testing.world import Leaked, World
from tests.network.scene import call, put_pair

ROOT = Path(__file__).parents[2]
ANY = Endpoint("0.0.0.0", 4001)


# ---- deadlocks ---------------------------------------------------------------------------


@pytest.mark.parametrize("patience", [10.0, 1e6])
def test_a_deadlock_is_there_at_once(patience: float) -> None:
    async def main() -> None:
        async with World(patience=patience) as world:  # The longer, by a real clock, is 11 days.
            world.machine()
            await trio.Event().wait()

    with pytest.raises(trio.TooSlowError):
        run(main)


def test_a_deadlock_with_hosts_alive_is_ended_too() -> None:
    async def main() -> None:
        async with World(patience=600) as world:
            pair = await put_pair(world)
            with pair.bob.host.subscribe(str) as never:
                await anext(never)

    with pytest.raises(trio.TooSlowError) as caught:
        run(main)
    assert any("World(seed=0)" in note for note in caught.value.__notes__)


# ---- leaks -------------------------------------------------------------------------------


async def leave_listener(world: World) -> None:
    await world.machine("m").env.network.listen_tcp(ANY)


async def leave_datagram_socket(world: World) -> None:
    await world.machine("m").env.network.bind_udp(ANY)


async def leave_connections(world: World) -> None:
    one, other = world.machine("m"), world.machine("other")
    listener = await other.env.network.listen_tcp(ANY)
    await one.env.network.dial_tcp(Endpoint(other.addresses[0], 4001))
    await (await listener.accept()).aclose()
    await listener.aclose()


async def leave_router_socket(world: World) -> None:
    world.home("port-restricted", "m")
    world.routers["m"].kernel.bind(ANY)


async def leave_timer(world: World) -> None:
    timeline = world._ground.timeline

    def again() -> None:
        timeline.after(3600, again)

    again()


async def leave_forward(world: World) -> None:
    world.home("port-restricted", "m")
    nat = world.routers["m"].nat
    nat.map_port("tcp", Endpoint("192.168.1.9", 1), 8080, seconds=None, now=trio.current_time())


@pytest.mark.parametrize(
    ("leave", "told"),
    [
        (leave_listener, "m: listening at"),
        (leave_datagram_socket, "m: udp"),
        (leave_connections, "m: tcp"),
        (leave_router_socket, "m: udp"),
        (leave_timer, "a timer that is set again and again"),
        (leave_forward, "m: .*8080"),
    ],
)
def test_what_is_left_in_a_world_is_named(
    leave: Callable[[World], Awaitable[None]], told: str
) -> None:
    async def main() -> None:
        async with World() as world:
            await leave(world)

    with pytest.raises(Leaked, match=told):
        run(main)


def test_a_task_that_was_left_ends_with_the_world() -> None:
    ended = []

    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    async def main() -> None:
        async with World() as world:
            pair = await put_pair(world)
            world._nursery.start_soon(linger)
            pair.bob.host.handle("/lingering", lambda stream: linger())
            stream = await (await call(pair.alice, pair.bob)).open_stream("/lingering")
            await stream.send_all(b"x")

    run(main)
    assert ended == ["task", "task"]


def test_hosts_that_were_busy_when_the_world_ended_leave_nothing() -> None:
    async def main() -> None:
        async with World() as world:
            pair = await put_pair(world)
            await call(pair.alice, pair.bob)
            # In the middle of a hole punch.

    run(main)


@pytest.mark.parametrize("end", ["stop", "power_off"])
def test_whenever_a_host_ends_it_leaves_nothing(end: str) -> None:
    async def main(seconds: float) -> None:
        async with World() as world:
            pair = await put_pair(world)
            await call(pair.alice, pair.bob)
            await trio.sleep(seconds)
            await (pair.bob.stop() if end == "stop" else pair.bob.power_off())
            await trio.sleep(1)

    for step in range(8):
        run(partial(main, step * 0.1))


# ---- determinism -------------------------------------------------------------------------


def start_churn(seed: int, hash_seed: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, str(ROOT / "tests/network/churn.py"), str(seed)]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, text=True)


def test_the_same_seed_gives_the_same_packets_in_any_process() -> None:
    processes = [start_churn(1, hash_seed) for hash_seed in ("1", "2", "3")]
    processes.append(start_churn(2, "1"))
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    *same, other = printed
    assert len(set(same)) == 1
    assert len(other) == len(same[0]) == 64
    assert other not in same


# ---- the report of a failure -------------------------------------------------------------

FAILING = """
import pytest
from p2pnet import presets

@pytest.mark.seed(7)
async def test_that_fails(world):
    relay = await world.host(presets.relay(), "the relay")
    home = world.home("symmetric", "the home")
    alice = await world.host(presets.edge(relays=[relay.address]), "alice", at=home)
    await alice.host.connect(relay.address)
    assert alice.host.connections() == ()
"""


def test_a_test_that_fails_tells_seed_and_packets_and_draws_them(tmp_path: Path) -> None:
    (tmp_path / "test_failing.py").write_text(FAILING)
    (tmp_path / "pytest.ini").write_text("[pytest]\ntrio_mode = true\n")
    plugin = "-pp2pnet.testing.pytest_plugin"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", plugin, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "World(seed=7)" in done.stdout
    assert "alice -> the home tcp 192.168.1.2:" in done.stdout
    assert "```mermaid\nsequenceDiagram\n" in done.stdout
    assert "as the relay" in done.stdout
