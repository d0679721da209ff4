"""A seeded trio scheduler: tasks that are ready at the same moment run in the order of a seed.

trio shuffles such tasks, so that nobody relies on an order. Seeded, the shuffle is the same
in each run, and each seed is another interleaving of the tasks. This uses the two names of
trio's inside that trio's own support for Hypothesis uses; should they go, it says so.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from random import Random

from trio._core import _run


@contextmanager
def seeded_scheduler(seed: int) -> Generator[None]:
    """Make the order of tasks depend on ``seed`` alone, within the block.

    Raises:
        RuntimeError: if this version of trio cannot do that.
    """
    if not isinstance(getattr(_run, "_r", None), Random) or not hasattr(
        _run, "_ALLOW_DETERMINISTIC_SCHEDULING"
    ):
        raise RuntimeError("this version of trio has no scheduler that can be seeded")
    names = vars(_run)
    before = names["_ALLOW_DETERMINISTIC_SCHEDULING"], names["_r"].getstate()
    names["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    names["_r"].seed(seed)
    try:
        yield
    finally:
        names["_ALLOW_DETERMINISTIC_SCHEDULING"] = before[0]
        names["_r"].setstate(before[1])


def reseed(seed: int) -> None:
    """Go on in the order of another seed, within the block of ``seeded_scheduler``."""
    vars(_run)["_r"].seed(seed)
