"""Resident memory."""

from __future__ import annotations

import gc

import psutil


def resident(pid: int | None = None) -> int:
    """Return the resident bytes of a process; None for this one."""
    return int(psutil.Process(pid).memory_info().rss)


def settled() -> int:
    """Return the resident bytes of this process, less garbage."""
    gc.collect()
    return resident()
