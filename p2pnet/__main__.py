"""The ``p2pnet`` command. What each subcommand does is in ``commands/``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from p2pnet.commands.parser import build_parser, spelled_out

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code: 0 on success only."""
    try:
        args = build_parser().parse_args(
            spelled_out(sys.argv[1:] if arguments is None else arguments)
        )
        level = [logging.WARNING, logging.INFO, logging.DEBUG][min(args.verbose, 2)]
        logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s")
        logging.getLogger("p2pnet").setLevel(level)
        return run(args)
    except KeyboardInterrupt:
        return INTERRUPTED


def run(args: argparse.Namespace) -> int:
    # Not before there is something to do: all of p2pnet takes a while to import.
    from p2pnet.commands.running import run_command  # noqa: PLC0415

    if args.command != "demo":
        return run_command(args)
    from p2pnet.demo.program import demo  # noqa: PLC0415

    return run_command(args, lambda _, output: demo(output))


if __name__ == "__main__":
    sys.exit(main())
