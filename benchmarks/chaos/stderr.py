"""Standard error, kept out of the way: what starved interpreters print is expected, and long."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def errors_to(path: Path) -> Iterator[None]:
    """Have this program and its children write their standard error to a file in the block."""
    sys.stderr.flush()
    kept = os.dup(2)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.dup2(fd, 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(fd)
