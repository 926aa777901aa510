"""The command line: one thin module per subcommand, over the public API."""

from convdsl.cli.app import main

__all__ = ["main"]
