"""What this process and others use: memory, descriptors, processor time; and its children."""

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


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return int(psutil.Process().num_fds())


def children() -> set[int]:
    """Return the process numbers of this process's children."""
    return {child.pid for child in psutil.Process().children()}


def processor_seconds(pid: int) -> float:
    """Return the seconds of a processor that a process has used."""
    used = psutil.Process(pid).cpu_times()
    return float(used.user + used.system)
