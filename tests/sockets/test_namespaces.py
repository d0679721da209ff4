"""The laboratory of network namespaces, as root and as an ordinary user."""

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from p2pnet.demo import private_world
from p2pnet.demo.namespaces import How, check_support, reexec_command

pytestmark = pytest.mark.sockets

Seen = dict[str, object]  # What JSON can hold, by the name of the observation.

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("namespaces_program.py")
DELAY = 0.02  # Seconds, as in the program.
PATIENCE = 5.0


def as_user(how: How) -> list[str]:
    """Give the command prefix that leaves a program what it may have in the way ``how``.

    Without capabilities root is to the kernel like anybody, but can still read its own
    files. The one that is left lets it stand for the root of a user namespace.
    """
    if how == "root" or os.geteuid() != 0:
        return []
    keep = "--bounding-set=-all,+setfcap"
    return ["setpriv", keep, "--inh-caps=-all", "--no-new-privs", "--"]


def script(*words: str) -> list[str]:
    return [sys.executable, str(PROGRAM), *words]


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        argv, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def support_found(prefix: list[str]) -> Seen:
    done = run([*prefix, *script("support")])
    assert done.returncode == 0, done.stderr
    found: Seen = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module", params=get_args(How))
def way(request: pytest.FixtureRequest) -> How:
    how: How = request.param
    if how == "root" and os.geteuid() != 0:
        pytest.skip("needs root")
    support = support_found(as_user(how))
    if support["how"] != how:
        pytest.skip(f"not permitted here: {support}")
    return how


@pytest.fixture(scope="module")
def seen(way: How) -> Seen:
    done = run([*as_user(way), *reexec_command(script("observe"), how=way)])
    assert done.returncode == 0, done.stderr
    observed: Seen = json.loads(done.stdout)
    return observed


def test_relay_and_two_homes_take_half_a_second_of_work_at_most(seen: Seen) -> None:
    """Of processors, here and in children: of a busy machine's clock most goes to others."""
    assert isinstance(seen["work to build"], float)
    assert seen["work to build"] < 0.5


def test_a_program_runs_on_the_host_it_is_meant_for(seen: Seen) -> None:
    assert seen["addresses"] == ["192.168.1.2", "11.0.1.1"]
    assert seen["run on alice"] == "192.168.1.2"
    assert seen["run on relay"] == "11.0.0.1"


def test_homes_name_stands_for_its_router(seen: Seen) -> None:
    assert seen["run on a router"] == "11.0.5.1"


def test_home_may_be_behind_the_nat_of_a_carrier_with_rules_of_its_own(seen: Seen) -> None:
    assert seen["addresses of vera"] == ["192.168.1.2", "100.64.1.2"]
    assert seen["sources of vera"] == [["11.0.5.1", 7777, "ping"]] * 2


@pytest.mark.parametrize(("host", "outside"), [("alice", "11.0.1.1"), ("rita", "11.0.4.1")])
def test_nat_keeps_the_port_towards_every_destination(seen: Seen, host: str, outside: str) -> None:
    assert seen[f"sources of {host}"] == [[outside, 4001, "ping"]] * 2


def test_symmetric_nat_takes_another_port_for_each_destination(seen: Seen) -> None:
    sources = seen["sources of sam"]
    assert isinstance(sources, list)
    assert [(address, word) for address, _, word in sources] == [("11.0.3.1", "ping")] * 2
    assert len({4001, *(port for _, port, _ in sources)}) == 3


@pytest.mark.parametrize("home", ["left", "symmetric"])
def test_nat_drops_what_is_unsolicited_by_address_and_port(seen: Seen, home: str) -> None:
    assert seen[f"unsolicited to {home}"] == ["silence", "silence"]


def test_refusing_nat_answers_what_is_unsolicited(seen: Seen) -> None:
    assert seen["unsolicited to refusing"] == ["refused", "refused"]


def test_datagrams_keep_their_port_and_get_answers_from_whom_they_asked(seen: Seen) -> None:
    assert seen["datagrams"] == {
        "asked": ["11.0.1.1", 5001, "done"],
        "same host": ["11.0.1.1", 5001, "silence"],
        "other host": ["11.0.1.1", 5001, "silence"],
    }


def test_simultaneous_open_goes_through_two_nats(seen: Seen) -> None:
    left, right = "11.0.1.1", "11.0.2.1"
    assert seen["punched"] == ["well met", [right, 6001], [left, 6001]]
    assert seen["punched again"] == ["well met", [left, 6002], [right, 6002]]


def test_simultaneous_open_needs_delay_between_nats_that_refuse(seen: Seen) -> None:
    ends = [["11.0.4.1", 6003], ["11.0.3.1", 6003]]
    assert seen["punched refusing"] == ["well met", *ends]
    assert seen["unsolicited late"] == "refused"


def test_packets_are_late_by_the_delay_and_otherwise_as_they_were(seen: Seen) -> None:
    round_trip = seen["round trip"]
    assert isinstance(round_trip, float)
    assert 2 * DELAY <= round_trip < 2 * DELAY + 0.5
    assert seen["transfer"] == "whole"


def test_private_addresses_reach_the_own_home_and_nothing_beyond(seen: Seen) -> None:
    assert seen["dials of amy"] == ["refused", "silence"]
    assert seen["dials of alice late"] == "silence"


def test_nat_lets_nobody_in_by_a_private_address(seen: Seen) -> None:
    assert seen["dial by a route of one's own"] == "silence"


def test_a_host_that_has_moved_is_behind_the_nat_of_its_new_home(seen: Seen) -> None:
    assert seen["moved"] == [
        ["192.168.1.2", "11.0.6.1", 5002, "answer"],
        ["192.168.1.4", "11.0.1.1", 5002, "answer"],
    ]


def test_laboratory_says_what_it_cannot_build(seen: Seen) -> None:
    assert seen["mistakes"] == [
        "tiny has no address left",
        "there is no home called nowhere",
        "tiny has no address left",
        "alice is there already",
        "left is there already",
        "11.0.1.1 is taken or not in 11.0.0.0/16",
        "11.0.255.254 is taken or not in 11.0.0.0/16",
        "11.1.0.1 is taken or not in 11.0.0.0/16",
        "there is no host called nobody",
    ]


def test_leaving_closes_everything(seen: Seen) -> None:
    assert seen["after the end"] == "there is no host called alice"
    assert seen["left open"] == 0


def test_world_hands_on_the_exit_status(way: How) -> None:
    for status in (0, 7):
        argv = reexec_command(["sh", "-c", f"exit {status}"], how=way)
        assert run([*as_user(way), *argv]).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_everything_in_the_world(way: How, number: signal.Signals) -> None:
    argv = reexec_command(["sh", "-c", "sleep 60 & echo begun; sleep 60"], how=way)
    with subprocess.Popen([*as_user(way), *argv], stdout=subprocess.PIPE) as world:
        assert world.stdout is not None
        assert world.stdout.readline() == b"begun\n"
        world.send_signal(number)
        # The end of the pipe is the end of the last process that could write to it.
        assert select.select([world.stdout], [], [], PATIENCE)[0]
        assert world.stdout.read() == b""


def test_an_interrupt_is_left_to_the_program(way: How) -> None:
    program = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "print('begun', flush=True)\n"
        "print(signal.sigwait({signal.SIGINT}).name)"
    )
    argv = reexec_command([sys.executable, "-I", "-c", program], how=way)
    # A terminal interrupts a whole process group, which this one leads.
    with subprocess.Popen(
        [*as_user(way), *argv], stdout=subprocess.PIPE, start_new_session=True
    ) as world:
        assert world.stdout is not None
        assert world.stdout.readline() == b"begun\n"
        os.killpg(world.pid, signal.SIGINT)
        assert world.stdout.read() == b"SIGINT\n"
    assert world.returncode == 0


def test_support_names_what_forbids_namespaces(way: How) -> None:
    # In a user namespace of its own even root gets no more than this permits.
    forbid = "for kind in net user; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done"
    forbidding = ["unshare", "-Ur", "sh", "-c", f'{forbid}; exec "$@"', "sh"]
    support = support_found([*as_user(way), *forbidding])
    assert support["usable"] is False
    assert support["how"] is None
    assert isinstance(support["missing"], list)
    as_root, as_anybody = support["missing"]
    assert as_root.startswith("this root may not make network namespaces")
    assert as_anybody.endswith("run as root, or sysctl user.max_user_namespaces=10000")


def test_support_names_the_tool_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(private_world._PACKAGES, "no-such-tool", "its-package")
    support = check_support()
    assert not support.usable
    assert support.missing == ("no-such-tool is not installed: apt install its-package",)
