"""Have miniupnpd map a port for a p2pnet host, and write what was observed as JSON.

The program of `interop/test_port_mapping.py`, which judges it. Runs in a private world (see
``p2pnet.demo.namespaces``); its arguments are the protocols that the host may use, and options
of miniupnpd::

    internet: 11.0.0.0/16
     |-- stranger 11.0.0.2
     `-- router   11.0.1.1, symmetric, with miniupnpd -- alice 192.168.1.2, listens at 4001

The router forwards nothing but what miniupnpd makes it forward.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from p2pnet.demo.namespaces import Laboratory
from p2pnet.demo.private_world import tool

OUTSIDE: Final = "11.0.1.1"
HOME, ALICE, STRANGER = "home", "alice", "stranger"
PATIENCE: Final = 60.0
DIAL_SECONDS: Final = 3.0
"""Where nobody is expected to answer, or another attempt follows."""
END_SECONDS: Final = 10.0
MINIUPNPD: Final = "/usr/sbin/miniupnpd"
PROGRAM: Final = [sys.executable, "-m", "interop.natlab.port_map_host"]
RULES: Final = """
    table inet portmap {
        chain forwarded {}
        chain mapped {}
        chain remapped {}
        chain through {
            type filter hook forward priority filter; policy drop;
            ct state invalid drop
            iifname "lan" accept
            ct state established,related accept
            jump forwarded
        }
        chain before { type nat hook prerouting priority dstnat; jump mapped; }
        chain after {
            type nat hook postrouting priority srcnat;
            jump remapped
            oifname "wan" masquerade fully-random
        }
        chain incoming {
            type filter hook input priority filter; policy accept;
            iifname "wan" ct state established,related accept
            iifname "wan" drop
        }
    }
"""
CHAINS: Final = ("forwarded", "mapped", "remapped")
SETTINGS: Final = """
ext_ifname=wan
listening_ip=lan
enable_natpmp=yes
enable_upnp=yes
secure_mode=yes
system_uptime=no
notify_interval=60
clean_ruleset_interval=600
uuid=70327070-6e65-4000-8000-0000c0a80101
upnp_table_name=portmap
upnp_nat_table_name=portmap
upnp_forward_chain=forwarded
upnp_nat_chain=mapped
upnp_nat_postrouting_chain=remapped
allow 1024-65535 192.168.1.0/24 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
"""


class Router:
    """The router of the home, on which miniupnpd can be ended and begun anew."""

    def __init__(self, laboratory: Laboratory, folder: Path, options: list[str]) -> None:
        self._laboratory = laboratory
        self._options = options
        self._folder = folder
        self._settings = folder / "miniupnpd.conf"
        self._settings.write_text(SETTINGS)
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        files = ["-f", str(self._settings), "-P", str(self._folder / "pid")]
        own = [MINIUPNPD, "-d", *files, *self._options]
        with (self._folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                self._laboratory.command(HOME, own),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def lose_power(self) -> None:
        """End without a word, and forget everything."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
        for chain in CHAINS:
            self._nft("flush", "chain", "inet", "portmap", chain)

    @property
    def forwards(self) -> list[str]:
        """The rules that lead inside."""
        listed = self._nft("list", "chain", "inet", "portmap", "mapped")
        return [line.strip() for line in listed.splitlines() if "dnat" in line]

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def _nft(self, *words: str) -> str:
        argv = self._laboratory.command(HOME, [tool("nft"), *words])
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class AtHome:
    """The host at home, and what it says."""

    def __init__(self, laboratory: Laboratory, protocols: list[str]) -> None:
        argv = laboratory.command(ALICE, [*PROGRAM, "home", *protocols])
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def next(self) -> dict[str, str]:
        """Wait for what it says next."""
        if self._process.stdout is None:
            raise RuntimeError("the host has no output")
        said: dict[str, str] = json.loads(self._process.stdout.readline())
        return said

    def close(self) -> list[dict[str, str]]:
        """End it in good order, and return what it said on the way."""
        output, _ = self._process.communicate(timeout=END_SECONDS)
        return [json.loads(line) for line in output.splitlines()]

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def built(folder: Path, options: list[str]) -> Iterator[tuple[Laboratory, Router]]:
    with Laboratory() as laboratory:
        laboratory.add_public(STRANGER, "11.0.0.2")
        laboratory.add_home(HOME, outside=OUTSIDE, nat=RULES)
        laboratory.add_host(HOME, ALICE)
        router = Router(laboratory, folder, options)
        try:
            router.start()
            yield laboratory, router
        finally:
            router.lose_power()


def reaches(laboratory: Laboratory, address: str, *, seconds: float = DIAL_SECONDS) -> bool:
    argv = laboratory.command(STRANGER, [*PROGRAM, "dial", address, str(seconds)])
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["reached"] is True


def until_reached(laboratory: Laboratory, address: str) -> float:
    """Dial again and again; return the seconds until that worked."""
    began = time.monotonic()
    while not reaches(laboratory, address):
        if time.monotonic() > began + PATIENCE:
            raise RuntimeError(f"{address} is not reached any more")
    return time.monotonic() - began


def observe(words: list[str], folder: Path) -> dict[str, object]:
    options = [word for word in words if word.startswith("-")]
    protocols = [word for word in words if word not in options]
    with built(folder, options) as (laboratory, router):
        alice = AtHome(laboratory, protocols)
        try:
            said = alice.next()
            address = said["address"]
            reached = reaches(laboratory, address, seconds=PATIENCE)
            first = {"reached": reached, "forwards": len(router.forwards)}
            router.lose_power()
            dark = reaches(laboratory, address)
            router.start()
            back = until_reached(laboratory, address)
            last = alice.close()
            return {
                **said,
                **first,
                "reached_without_router": dark,
                "seconds_until_back": back,
                "exit_code": alice.exit_code,
                "said_at_the_end": last,
                "forwards_at_the_end": router.forwards,
                "reached_at_the_end": reaches(laboratory, address),
            }
        except BaseException:
            sys.stderr.write(router.log[-4000:])
            raise
        finally:
            alice.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="natlab-") as own:
        print(json.dumps(observe(sys.argv[1:], Path(own))))
