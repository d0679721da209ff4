"""Which code runs of the NAT matrix are of: a hash of all that they use, and the commits.

What is measured stays valid as long as nothing changes that a run uses; so the hash leaves out what
no run touches, and a change there does not begin a campaign anew. Beside the runs stands at which
commits they were made.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
NOT_USED = (
    "p2pnet/commands",
    "p2pnet/demo",
    "p2pnet/protocols/perf",
    "p2pnet/testing/conformance",
    "p2pnet/testing/probing",
    "p2pnet/transports/websocket",
)
"""Folders of which a run imports nothing."""
SIMULATED = "benchmarks/matrix_futures.py"
LABORATORY = "interop/natlab/*.py"
"""What lets peers meet."""
COMMITS = "commits.jsonl"


def sources(runner: str = SIMULATED) -> list[Path]:
    """Return the files that decide what comes of a run."""
    unused = tuple(ROOT / folder for folder in NOT_USED)
    found = [*ROOT.glob("p2pnet/**/*.py"), *ROOT.glob(runner)]
    return sorted(path for path in found if not any(path.is_relative_to(f) for f in unused))


def code_hash(runner: str = SIMULATED) -> str:
    """Return a hash of all that the runs depend on here."""
    digest = hashlib.sha256()
    for source in sources(runner):
        digest.update(f"{source.relative_to(ROOT)} {source.stat().st_size}\n".encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def commit() -> str:
    """Return the commit that is checked out, and whether the sources differ from it."""
    try:
        name = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "p2pnet", "benchmarks/matrix_futures.py")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}, changed" if changed else name


def git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def note(folder: Path, *, to_go: int) -> None:
    """Write down beside the runs that more are begun, at which commit, and what is to go."""
    line = {"commit": commit(), "batches to go": to_go}
    with (folder / COMMITS).open("a") as file:
        file.write(json.dumps(line) + "\n")


def commits_of(folder: Path) -> tuple[str, ...]:
    """Return the commits at which runs were made, the first one first."""
    file = folder / COMMITS
    lines = file.read_text().splitlines() if file.exists() else []
    return tuple(dict.fromkeys(json.loads(line)["commit"] for line in lines))
