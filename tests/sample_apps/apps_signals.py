"""An app that deals with signals in ways that would keep it from being interrupted."""

from __future__ import annotations

import signal
import subprocess
import sys

import trio_dirty


class Signals(trio_dirty.App):
    def blocked(self) -> int:
        """Return how many signals are blocked."""
        return len(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    def exitcode(self) -> int:
        """Return that of a process that it starts."""
        return subprocess.run([sys.executable, "-S", "-c", "raise SystemExit(7)"]).returncode

    def spoil(self, how: str) -> None:
        """Deal with the signal that interrupts actions."""
        if how == "block":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGURG])
        elif how == "ignore":
            signal.signal(signal.SIGURG, signal.SIG_IGN)
        elif how == "handle":
            signal.signal(signal.SIGURG, lambda *_: None)
