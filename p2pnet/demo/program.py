"""``p2pnet demo``: two peers behind NATs meet by peer ID over a relay, and end up direct.

The director: builds the stage (network namespaces with the kernel's NAT, or loopback where
those are not permitted), starts the three actors on it, and tells the story.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

import trio

from p2pnet.commands.output import Output, nobody_reads
from p2pnet.core.tasks import bare_exceptions
from p2pnet.demo.namespaces import (
    Laboratory,
    LaboratoryError,
    Support,
    check_support,
    reexec_command,
)

RELAY_ADDRESS = "11.0.0.1"
HOME_A = "11.0.1.1"
HOME_B = "11.0.2.1"
DELAY = 0.02
"""Seconds from one public address to another: simultaneous means something only with it."""
WHOLE_SECONDS = 120.0
START_SECONDS = 30.0
BAR_WIDTH = 40
INTERRUPTED = 130

IN_THE_WORLD = f"""
import os, signal, sys
signal.signal(signal.SIGINT, lambda *_: os._exit({INTERRUPTED}))
from p2pnet.demo.program import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs ``main``, and lets an interrupt end it quietly also while it is being imported."""

Event = dict[str, object]


class DemoFailed(Exception):
    """The demo did not end as it should; the text says where."""


@dataclass(slots=True)
class Stage:
    """How to run a program in one of the three places, and where they listen."""

    where: str
    relay_listen: str
    peer_listen: str
    command: Callable[[str, Sequence[str]], list[str]]


def demo(output: Output) -> int:
    """Run the demo; 0 only if the connection ended direct and the file arrived whole."""
    try:
        support = check_support()
    except LaboratoryError as error:
        support = Support(False, None, (str(error),))
    if support.usable and support.how is not None:
        flags = ["--json"] if output.as_json else []
        argv = [sys.executable, "-c", IN_THE_WORLD, *flags]
        command = reexec_command(argv, how=support.how)
        os.execv(command[0], command)
    for reason in support.missing:
        output.event("missing", f"no network namespaces: {reason}", reason=reason)
    output.event("stage", "so this runs on loopback, without NATs", stage="loopback")
    return perform(loopback(), output)


def loopback() -> Stage:
    any_port = "/ip4/127.0.0.1/tcp/0"
    return Stage("loopback", any_port, any_port, lambda place, argv: list(argv))


def main(arguments: list[str]) -> int:
    """Run inside a private world: build the laboratory, and perform there."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = Output(as_json="--json" in arguments)
    try:
        return perform_in_laboratory(output)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return nobody_reads()
    except LaboratoryError as error:
        output.event("failed", f"failed: {error}", reason=str(error))
        return 1


def perform_in_laboratory(output: Output) -> int:
    with Laboratory(delay=DELAY) as laboratory:
        laboratory.add_public("relay", RELAY_ADDRESS)
        laboratory.add_home("home A", outside=HOME_A)
        laboratory.add_home("home B", outside=HOME_B)
        laboratory.add_host("home A", "sender")
        laboratory.add_host("home B", "receiver")
        output.event(
            "stage",
            f"relay on {RELAY_ADDRESS}; A ({laboratory.address('sender')}) behind the NAT {HOME_A};"
            f" B ({laboratory.address('receiver')}) behind the NAT {HOME_B}",
            stage="namespaces",
            relay=RELAY_ADDRESS,
            nat_a=HOME_A,
            nat_b=HOME_B,
        )
        stage = Stage(
            "namespaces",
            f"/ip4/{RELAY_ADDRESS}/tcp/4001",
            "/ip4/0.0.0.0/tcp/4001",
            laboratory.command,
        )
        return perform(stage, output)


def perform(stage: Stage, output: Output) -> int:
    try:
        with bare_exceptions():
            trio.run(direct, stage, output)
    except (DemoFailed, trio.TooSlowError) as error:
        words = str(error) or f"the demo took longer than {WHOLE_SECONDS:.0f} s"
        output.event("failed", f"failed: {words}", reason=words)
        return 1
    return 0


async def direct(stage: Stage, output: Output) -> None:
    """Start the actors one after another, and tell what they report."""
    story = Story(output)
    with trio.fail_after(WHOLE_SECONDS):
        async with actor(stage, "relay", ["relay", stage.relay_listen]) as relay:
            relay_address = str((await first(relay, "listening"))["address"])
            output.event("relay", f"relay   listens at {relay_address}", address=relay_address)
            arguments = ["receiver", stage.peer_listen, relay_address, stage.where]
            async with actor(stage, "receiver", arguments) as receiver:
                await meet(stage, story, relay_address, receiver)
    story.check()


async def meet(
    stage: Stage, story: Story, relay_address: str, receiver: AsyncGenerator[Event, None]
) -> None:
    peer_id = str((await first(receiver, "listening"))["peer_id"])
    awaited = {"observed", "reserved"} if stage.where == "namespaces" else {"reserved"}
    while awaited:
        event = await first(receiver, *awaited)
        awaited.discard(str(event["event"]))
        story.tell("B", event)
    arguments = ["sender", stage.peer_listen, relay_address, stage.where, peer_id]
    async with actor(stage, "sender", arguments) as sender, trio.open_nursery() as nursery:
        nursery.start_soon(follow, receiver, story, "B")
        story.output.event("begin", f"A       knows only the relay and {peer_id}", peer=peer_id)
        await follow(sender, story, "A")
        nursery.cancel_scope.cancel()


async def follow(events: AsyncGenerator[Event, None], story: Story, who: str) -> None:
    async for event in events:
        check_well(event)
        story.tell(who, event)


async def first(events: AsyncGenerator[Event, None], *names: str) -> Event:
    """Wait for an event of one of these names."""
    awaited = " and ".join(names)
    with trio.move_on_after(START_SECONDS):
        async for event in events:
            check_well(event)
            if event["event"] in names:
                return event
        raise DemoFailed(f"an actor ended before it was {awaited}")
    raise DemoFailed(f"an actor was not {awaited} within {START_SECONDS:.0f} s")


def check_well(event: Event) -> None:
    if event["event"] == "failed":
        raise DemoFailed(str(event["reason"]))


@asynccontextmanager
async def actor(
    stage: Stage, place: str, arguments: Sequence[str]
) -> AsyncGenerator[AsyncGenerator[Event, None], None]:
    """Run an actor for as long as the block lasts; gives the events it prints.

    An interrupt from the terminal is not meant for it. It leaves when its stdin ends, so
    that no actor outlives a director who was killed.
    """
    argv = [sys.executable, "-m", "p2pnet.demo.actor", *arguments]
    process = await trio.lowlevel.open_process(
        stage.command(place, argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with aclosing(read_events(process)) as events:
            yield events
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                process.kill()
            await process.wait()
            if process.stdin is not None:
                await process.stdin.aclose()


async def read_events(process: trio.Process) -> AsyncGenerator[Event, None]:
    if process.stdout is None:
        return
    buffer = b""
    async with process.stdout as stdout:
        async for chunk in stdout:
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                yield json.loads(line)


@dataclass(slots=True)
class Story:
    """Puts the actors' events into words, and remembers what has to be true in the end."""

    output: Output
    direct: bool = False
    same: bool = False
    told: set[str] = field(default_factory=set)

    def tell(self, who: str, event: Event) -> None:
        name = str(event["event"])
        if name == "progress":
            self._progress(event)
            return
        if name == "connected":
            self.direct = not event["relayed"]
        if name == "sent":
            self.same = bool(event["same"]) and not event["relayed"]
        words = put_in_words(name, event)
        if words and (who + words) not in self.told:
            self.told.add(who + words)
            self.output.event(name, f"{who}       {words}", who=who, **plain(event))

    def _progress(self, event: Event) -> None:
        sent, total = int(str(event["sent"])), int(str(event["total"]))
        if self.output.as_json:
            self.output.event("progress", "", sent=sent, total=total)
            return
        if sent < total and not sys.stdout.isatty():
            return  # a log wants no moving picture
        done = BAR_WIDTH * sent // total
        bar = "#" * done + "." * (BAR_WIDTH - done)
        end = "\n" if sent == total else "\r"
        print(f"A       [{bar}] {sent >> 20:2d} of {total >> 20} MiB", end=end, flush=True)

    def check(self) -> None:
        if not self.direct:
            raise DemoFailed("the connection stayed relayed")
        if not self.same:
            raise DemoFailed("the file did not arrive whole over the direct connection")
        self.output.event("done", "done: direct, and the file is the same on both sides", ok=True)


def put_in_words(name: str, event: Event) -> str:
    """Say an event in a sentence; empty if it is none worth telling."""
    told = dict(event)
    for key in ("rtt_ms", "seconds"):
        told[key] = f"{float(str(event.get(key, 0))):.2f}"
    told["kind"] = "relayed" if event.get("relayed") else "direct"
    told["over"] = "over the relay" if event.get("relayed") else "direct"
    told["side"] = "begins" if event.get("initiator") else "joins"
    told["verdict"] = "the same" if event.get("same") else "NOT the same"
    told["by"] = str(event.get("by"))[-6:]
    for key in ("addresses", "reasons"):
        items = event.get(key)
        told[key] = ", ".join(map(str, items)) if isinstance(items, list) else ""
    return SENTENCES.get(name, "").format_map(told)


SENTENCES = {
    "reserved": "reserved a place at the relay: {address}",
    "observed": "is seen at {address} by {by}",
    "connected": "{kind} connection to {address}",
    "ping": "ping {rtt_ms} ms, {over}",
    "punching": "{side} hole punch {attempt} towards {addresses}",
    "punch_failed": "hole punch {attempt} failed: {reason}",
    "given_up": "gave up punching: {reasons}",
    "punched": "direct after {seconds} s: {address}",
    "received": "received a file, SHA-256 {sha256}",
    "sent": "sent it in {seconds} s, SHA-256 {sha256}: {verdict}",
}


def plain(fields: Event) -> dict[str, str | int | float | bool | list[str]]:
    """Keep what JSON has: numbers, texts and lists of texts."""
    kept: dict[str, str | int | float | bool | list[str]] = {}
    for key, value in fields.items():
        if key == "event":
            continue
        if isinstance(value, str | int | float):
            kept[key] = value
        elif isinstance(value, list):
            kept[key] = [str(item) for item in value]
    return kept
