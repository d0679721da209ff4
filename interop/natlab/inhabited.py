"""``up`` and ``run``: a laboratory that people and other programs use from outside.

::

    up, on the machine                      the same program, in a private world
      | starts it, and a socket to it  ------> |  builds the laboratory
      | <-- a line: hosts, and descriptors     |  that hold their namespaces
      | tells how to get in, notes it in a     |
      | file for `run`; waits                  |  waits
      | EOF, Ctrl-C: closes the socket ------> |  ends, and all that was built with it

The process identifier that gets others in is not known inside, where processes have numbers of
their own; the kernel tells it to the other end of the socket.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from interop.natlab.building import Engine, Town
from interop.natlab.stage import OBSERVED_AT, RENDEZVOUS, observed
from p2pnet.demo.namespaces import How, LaboratoryError, check_support, reexec_command
from p2pnet.demo.private_world import tool
from p2pnet.testing.kinds import Kind
from p2pnet.testing.nat_kind import NatKind

RELAY: Final = "11.0.0.1"
INSIDE_VARIABLE: Final = "NATLAB"
"""In a laboratory, names the file that tells how to get to its hosts."""
LARGEST_NOTE: Final = 1 << 20
READY_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0

Note = dict[str, dict[str, object]]
"""By host: its address, its home, and the words that begin a command there."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built: hosts, each with a home of its own."""

    homes: Sequence[tuple[str, Kind]]
    delay: float
    engine: Engine


# ---- outside ----------------------------------------------------------------------------


def up(own: list[str], command: list[str], *, as_json: bool) -> int:
    """Have a laboratory until EOF or an interrupt, or while a command runs in it."""
    support = check_support()
    if not support.usable or support.how is None:
        raise LaboratoryError("; ".join(support.missing))
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # Leave nothing behind.
    with tempfile.TemporaryDirectory(prefix="natlab-") as folder:
        path = str(Path(folder) / "control")
        with socket.socket(socket.AF_UNIX) as control:
            control.bind(path)
            control.listen(1)
            words = [*own, "--inside", path, *(["--", *command] if command else [])]
            world = subprocess.Popen(reexec_command(words, how=support.how))
            try:
                return attend(world, control, support.how, told=not command, as_json=as_json)
            finally:
                end(world)


def end(world: subprocess.Popen[bytes]) -> None:
    """Wait for a world that was told to end, and end it if it does not."""
    with suppress(KeyboardInterrupt):
        try:
            world.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            world.terminate()
    world.wait()


def attend(
    world: subprocess.Popen[bytes], control: socket.socket, how: How, *, told: bool, as_json: bool
) -> int:
    """Wait for the laboratory, tell how to get in, and wait for its end."""
    readable, _, _ = select.select([control, pidfd(world)], [], [], READY_SECONDS)
    if control not in readable:
        if not readable:
            raise LaboratoryError(f"the laboratory was not ready in {READY_SECONDS:.0f} s")
        return world.wait()  # It has said why.
    connection, _ = control.accept()
    with connection, connection.makefile("rb") as reader:
        line = reader.readline(LARGEST_NOTE)
        if not line:
            return world.wait()
        note: Note = json.loads(line)
        get_in(note, pid_of(connection), how)
        with noted(note):
            if not told:
                return wait_for_command(world)
            with suppress(KeyboardInterrupt):  # Whoever was told may interrupt at once.
                tell(note, as_json=as_json)
                wait_for_end(world)
    return 0


def pidfd(process: subprocess.Popen[bytes]) -> int:
    """Give what becomes readable when a process ends; it is closed with this program."""
    return os.pidfd_open(process.pid)


def pid_of(connection: socket.socket) -> int:
    """Give the process at the other end of a socket, by the number that it has here."""
    credentials = struct.Struct("3i")
    got = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    pid, _, _ = credentials.unpack(got)
    return int(pid)


def get_in(note: Note, pid: int, how: How) -> None:
    """Write into a note by which command each host is entered from outside."""
    user = ["--preserve-credentials", "--user", "--target", str(pid)]
    for host in note.values():
        net = f"--net=/proc/{pid}/fd/{host.pop('descriptor')}"
        host["enter"] = [tool("nsenter"), *(user if how != "root" else []), net, "--"]


@contextmanager
def noted(note: Note) -> Iterator[None]:
    """Keep a note for `run` for a while."""
    folder = notes_folder()
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise LaboratoryError(f"{folder} belongs to somebody else")
    file = folder / f"{os.getpid()}.json"
    file.write_text(json.dumps(note))
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def notes_folder() -> Path:
    parent = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(parent) / f"p2pnet-natlab-{os.geteuid()}"


def tell(note: Note, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "up", "pid": os.getpid(), "hosts": note}), flush=True)
        return
    for name, host in note.items():
        home = f", behind {host['outside']} ({host['kind']})" if host["kind"] != "open" else ""
        print(f"{name:12}{host['address']}{home}")
        enter = host["enter"]
        if isinstance(enter, list):
            print(f"{'':12}{shlex.join(map(str, enter))} COMMAND")
    print(f"\nobservers at {', '.join(map(str, OBSERVED_AT))}; rendezvous at {RENDEZVOUS}")
    print("or: python -m interop.natlab run HOST -- COMMAND")
    print("Ctrl-C or the end of input ends it", flush=True)


def wait_for_end(world: subprocess.Popen[bytes]) -> None:
    """Wait for EOF or the end of the world."""
    over = pidfd(world)
    while True:
        readable, _, _ = select.select([sys.stdin, over], [], [])
        if over in readable or not os.read(sys.stdin.fileno(), 4096):
            return


def wait_for_command(world: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a world that decides on it itself; an interrupt went to it, too."""
    while True:
        with suppress(KeyboardInterrupt):
            return world.wait()


def run(host: str, command: list[str], *, lab: int | None) -> int:
    """Become a command on a host of a laboratory that is up.

    Raises:
        LaboratoryError: There is no such laboratory or host.
    """
    if not command:
        raise LaboratoryError("what is to be run there? Write it after --")
    note: Note = json.loads(note_file(lab).read_text())
    if host not in note:
        raise LaboratoryError(f"there is no host {host}; there are {', '.join(note)}")
    enter = note[host]["enter"]
    if not isinstance(enter, list):
        raise LaboratoryError(f"the note about {host} is broken")
    words = [*map(str, enter), *command]
    os.execv(words[0], words)


def note_file(lab: int | None) -> Path:
    if lab is None and INSIDE_VARIABLE in os.environ:
        return Path(os.environ[INSIDE_VARIABLE])
    found = [
        file
        for file in sorted(notes_folder().glob("*.json"))
        if Path("/proc", file.stem).exists() and lab in (None, int(file.stem))
    ]
    if not found:
        raise LaboratoryError("no laboratory is up" if lab is None else f"{lab} is none")
    if len(found) > 1:
        pids = ", ".join(file.stem for file in found)
        raise LaboratoryError(f"several laboratories are up; choose with --lab from {pids}")
    return found[0]


# ---- inside -----------------------------------------------------------------------------


def live(plan: Plan, control: str, command: list[str]) -> int:
    """Be the laboratory, in a private world, until told to end or the command has ended."""
    # Not ignored: that would be inherited by the command, which is meant by an interrupt.
    signal.signal(signal.SIGINT, lambda *_: None)
    town = Town(delay=plan.delay)
    with socket.socket(socket.AF_UNIX) as connection, town.built(), observed(town.laboratory):
        town.laboratory.add_public("relay", RELAY)
        for host, kind in plan.homes:
            town.add_home(f"home-{host}", kind, hosts=(host,), engine=plan.engine)
        note = note_of(town)
        connection.connect(control)
        connection.sendall(json.dumps(note).encode() + b"\n")
        if not command:
            connection.recv(1)
            return 0
        return perform(town, note, Path(control).with_name("hosts.json"), command)


def note_of(town: Town) -> Note:
    laboratory = town.laboratory
    note: Note = {}
    for name in ("relay", "observer-1", "observer-2"):
        note[name] = {"address": laboratory.address(name), "kind": "open"}
    for home in town.homes.values():
        for host in home.hosts:
            note[host] = {
                "address": laboratory.address(host),
                "home": home.name,
                "outside": home.outside,
                "kind": home.kind.name,
                "engine": home.engine,
            }
    for name, host_note in note.items():
        host_note["descriptor"] = laboratory.namespace(name)
    return note


def perform(town: Town, note: Note, file: Path, command: list[str]) -> int:
    """Run a command in the laboratory, on no host; `run` gets it to one."""
    for name, host in note.items():
        host["enter"] = town.laboratory.command(name, [])
    file.write_text(json.dumps(note))
    environment = {**os.environ, INSIDE_VARIABLE: str(file)}
    try:
        status = subprocess.run(command, env=environment, check=False).returncode
    except OSError as error:
        raise LaboratoryError(f"{command[0]} cannot be run: {error.strerror}") from error
    return status if status >= 0 else 128 - status


# ---- words ------------------------------------------------------------------------------


def described(nat: NatKind) -> list[str]:
    """Give what is said of a NAT: mapping and filtering, and all that is not as usual."""
    usual = asdict(NatKind())
    words = [f"{nat.mapping.value} mapping"] if nat.translates else ["no translation"]
    words.append(f"{nat.filtering.value} filtering")
    for name, value in asdict(nat).items():
        if value == usual[name] or name in ("mapping", "filtering", "translates"):
            continue
        told = value.value if isinstance(value, Enum) else value
        spoken = name.replace("_", " ")
        words.append(spoken if told is True else f"{spoken}: {told}")
    return words
