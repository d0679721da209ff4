"""The ``p2pnet`` command, one module a subcommand. Events and fields: specs/cli.md."""
