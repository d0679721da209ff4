"""Run a program in Linux namespaces of its own, where it may build what it likes.

A private world has network, mount and process namespaces of its own, made by ``unshare``;
an ordinary user gets a user namespace with them. When its first process ends, however it
ends, the kernel ends the others with it, so nothing of a world is ever left behind.

The module starts programs, so it is an exception to the rule that `p2pnet.core.env` is the
only door to the system. It also runs as a script, the supervisor of a world, for which it
imports nothing but the standard library.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, Literal, get_args

How = Literal["root", "user namespace"]

TRIAL_REFUSED: Final = 3
"""Exit status of a trial that entered a private world, but cannot do its work there."""

# Where packages come from, by the tool looked for.
_PACKAGES: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
}
# Sysctls that forbid user namespaces: the value with which they do, and one that permits.
_FORBIDDING: Final = (
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user.max_user_namespaces", "0", "10000"),
)
_GRACE: Final = 5  # Seconds a program has to end by itself after an interrupt.
_TRIAL_LIMIT: Final = 30.0  # Seconds; a trial takes less than one.


class LaboratoryError(Exception):
    """A laboratory cannot be built or used as asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a laboratory can be built here, and what to do if not."""

    usable: bool
    how: How | None
    missing: tuple[str, ...] = ()


def check_support() -> Support:
    """Find out by trial whether a laboratory can be built here; it takes about 0.3 s.

    Raises:
        LaboratoryError: The trial broke instead of being refused something.
    """
    if sys.platform != "linux":
        return Support(False, None, ("network namespaces exist on Linux only",))
    missing = tuple(
        f"{tool} is not installed: apt install {package}"
        for tool, package in _PACKAGES.items()
        if _find(tool) is None
    )
    if missing:
        return Support(False, None, missing)
    refusals: list[str] = []
    for how in get_args(How):
        if how == "root" and os.geteuid() != 0:
            continue
        refusal = _try_out(how)
        if refusal is None:
            return Support(True, how)
        refusals.append(refusal)
    return Support(False, None, tuple(refusals))


def reexec_command(argv: Sequence[str], *, how: How) -> list[str]:
    """Give the command that runs ``argv`` in a private world, made in the way ``how``.

    The command keeps the terminal, the environment, the working directory and the exit
    status of ``argv`` (128 + n if signal n ended it). SIGTERM, SIGHUP and SIGKILL end the
    whole world at once. SIGINT is left to ``argv``, as a terminal sends it to both; after
    five seconds the world is ended nevertheless. Where the caller has nothing more to do,
    `os.execv` lets the signals meant for it reach the command.
    """
    return [sys.executable, "-I", __file__, how, *argv]


def tool(name: str) -> str:
    """Give the path of a program that a laboratory needs.

    Raises:
        LaboratoryError: It is not installed.
    """
    found = _find(name)
    if found is None:
        raise LaboratoryError(f"{name} is not installed: apt install {_PACKAGES[name]}")
    return found


def _find(name: str) -> str | None:
    """Look for a program also where Debian keeps it from the path of ordinary users."""
    path = os.environ.get("PATH", os.defpath)
    return shutil.which(name, path=os.pathsep.join((path, "/usr/sbin", "/sbin")))


def _try_out(how: How) -> str | None:
    """Have a laboratory built in a private world; say what was refused, None if nothing."""
    try:
        trial = subprocess.run(
            reexec_command([sys.executable, "-m", "p2pnet.demo.namespaces"], how=how),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TRIAL_LIMIT,
        )
    except subprocess.TimeoutExpired:
        return f"a trial of network namespaces took more than {_TRIAL_LIMIT:.0f} s"
    match trial.returncode:
        case 0:
            return None
        case int(status) if status == TRIAL_REFUSED:
            return trial.stdout.strip()
        case _ if trial.stderr.startswith("unshare:"):
            return _why_no_world(how, trial.stderr.strip())
        case status:
            raise LaboratoryError(f"the trial itself broke ({status}): {trial.stderr}")


def _why_no_world(how: How, refusal: str) -> str:
    if how == "root":
        return f"this root may not make network namespaces ({refusal})"
    for name, forbidding, permitting in _FORBIDDING:
        setting = Path("/proc/sys", *name.split("."))
        if setting.exists() and setting.read_text().strip() == forbidding:
            return (
                f"user namespaces are not permitted ({refusal}): "
                f"run as root, or sysctl {name}={permitting}"
            )
    return f"user namespaces are not permitted ({refusal}): run as root"


def _supervise(how: str, argv: Sequence[str]) -> int:
    """Run ``argv`` as the first process of a private world, which ends when this does."""
    flags = "-nm" if how == "root" else "-Urnm"
    unshare = [tool("unshare"), flags, "--pid", "--fork", "--kill-child=KILL"]
    # `unshare` blocks SIGTERM while it waits, hence a supervisor that does not.
    world = subprocess.Popen(
        [tool("setpriv"), "--pdeathsig", "KILL", "--", *unshare, "--mount-proc", "--", *argv]
    )

    def end(_number: int, _frame: FrameType | None) -> None:
        world.kill()

    def end_soon(_number: int, _frame: FrameType | None) -> None:
        signal.alarm(_GRACE)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, end)
    signal.signal(signal.SIGINT, end_soon)
    status = world.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(_supervise(sys.argv[1], sys.argv[2:]))
