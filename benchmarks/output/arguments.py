"""What the command lines share."""

from __future__ import annotations

import argparse

from rich.console import Console

FILE_WIDTH = 130
"""Of the tables, where the output goes to no terminal."""


def count(text: str) -> int:
    """Return a number of things, of which there is at least one."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def open_console() -> Console:
    """Return where tables are printed."""
    console = Console()
    return console if console.is_terminal else Console(width=FILE_WIDTH)
