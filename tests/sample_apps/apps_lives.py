"""Apps for the tests of workers that come and go: scaling, reloads, recycling, health."""

from __future__ import annotations

import atexit
import os
import re
import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from apps_bad import Bad, log

import trio_dirty


class Gate:
    """Holds the actions that come to it until it is opened, and shows who has come."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def another(self) -> Gate:
        """Return a second one, in a place of its own."""
        place = self._directory / "another"
        place.mkdir()
        return Gate(place)

    def open(self) -> None:
        self._directory.joinpath("open").touch()

    def come(self, tag: object) -> None:
        """Wait in front of the gate; called by actions."""
        self._directory.joinpath(f"come {tag}").touch()
        while not self._directory.joinpath("open").exists():
            time.sleep(0.005)

    def has_come(self, *tags: object) -> bool:
        """Whether all of these have come."""
        return all(self._directory.joinpath(f"come {tag}").exists() for tag in tags)


class SlowToLoad:
    """Is unpickled when a gate is opened."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __setstate__(self, state: dict[str, object]) -> None:
        gate = state["gate"]
        assert isinstance(gate, Gate)
        gate.come("loading")
        self.__dict__.update(state)


def count(slow: SlowToLoad, data: bytes) -> int:
    return len(data)


class Lasting(Bad):
    """Its actions tell which worker executes them."""

    def init(self) -> None:
        """Boot, unless the file that LIVES_BROKEN names exists."""
        path = os.environ.get("LIVES_BROKEN")
        if path is not None and os.path.exists(path):
            raise RuntimeError(f"broken by {os.path.basename(path)}")
        self.hoard: list[bytearray] = []

    def who(self) -> int:
        return trio_dirty.worker_info().worker

    def wait(self, gate: Gate, tag: object) -> int:
        gate.come(tag)
        return self.who()

    def wait_for_each(self, gate: Gate) -> int:
        gate.come(f"slot {trio_dirty.worker_info().slot}")
        return self.who()

    def count(self, gate: Gate, tag: object) -> Iterator[int]:
        """Yield the worker ten times; hold at the gate in the middle."""
        for number in range(10):
            if number == 5:
                gate.come(tag)
            yield self.who()

    def note(self, key: object, number: int) -> int:
        log(f"{key} {number}")
        return self.who()

    def sleep(self, seconds: float) -> int:
        time.sleep(seconds)
        return self.who()

    def ask_again_and_again(self, begun: str) -> None:
        """Compute for ever, and ask now and then whether anybody wants that."""
        Path(begun).touch()
        while True:
            trio_dirty.check_cancelled()

    def hold_lock(self, begun: str, length: int = 34) -> int:  # type: ignore[override]
        """Keep the interpreter lock for a while, which doubles with each further letter."""
        Path(begun).touch()
        re.match("(a+)+$", "a" * length + "b")
        return self.who()

    def hold_lock_later(self, begun: str, length: int) -> None:
        """Do the same, when this has been answered."""
        threading.Timer(0.2, self.hold_lock, [begun, length]).start()

    def close_descriptors_later(self) -> int:
        """Close all descriptors, when this has been answered."""
        threading.Timer(0.5, os.closerange, [0, 1000]).start()
        return os.getpid()

    def hoard_memory(self, size: int) -> int:
        """Keep so many bytes more, all of them touched."""
        self.hoard.append(bytearray(b"\1") * size)
        return self.who()

    def ignore_signals(self) -> int:
        """Ignore every signal that can be."""
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        return os.getpid()

    def ignore_signals_and_hang(self, begun: str) -> None:
        """Do that in the middle of what is to be interrupted."""
        self.ignore_signals()
        self.hang(begun)

    def move_house(self, directory: str) -> int:
        """Change what a process has of its own, without asking the pool."""
        os.chdir(directory)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))
        return os.getpid()


class LastingToo(Lasting):
    """A second one."""


class DiesWhileBroken(Lasting):
    """Its process ends at boot while the file that LIVES_BROKEN names exists."""

    def init(self) -> None:
        if os.path.exists(os.environ["LIVES_BROKEN"]):
            os._exit(7)
        super().init()


class BootsHeld(Lasting):
    """Does not end its boot as long as the file that LIVES_BROKEN names exists."""

    def init(self) -> None:
        while os.path.exists(os.environ["LIVES_BROKEN"]):
            time.sleep(0.005)
        super().init()


class CloseRaises(Lasting):
    def close(self) -> NoReturn:
        raise ZeroDivisionError("close is broken")


class CloseHangs(Lasting):
    def close(self) -> None:
        time.sleep(600)


class CloseForks(Lasting):
    def close(self) -> None:
        """Leave a child that lives on."""
        log(f"forked {self.fork()}")


class SecondHangs(Lasting):
    """Boots in the first worker; the second one never ends its boot."""

    def init(self) -> None:
        log(str(os.getpid()))
        if len(Path(os.environ["BAD_LOG"]).read_text().splitlines()) > 1:
            time.sleep(600)


class Flushes(Lasting):
    """Has more to do when it is closed: in an exit handler, or in a thread that is left."""

    def flush_at_exit(self, gate: Gate) -> int:
        atexit.register(self._flush, gate)
        return os.getpid()

    def flush_in_thread(self, gate: Gate) -> int:
        self.closed = threading.Event()
        threading.Thread(target=self._flush, args=[gate, self.closed]).start()
        return os.getpid()

    def close(self) -> None:
        if hasattr(self, "closed"):
            self.closed.set()

    def _flush(self, gate: Gate, closed: threading.Event | None = None) -> None:
        if closed is not None:
            closed.wait()
        gate.come(os.getpid())
        log(f"flushed {os.getpid()}")
