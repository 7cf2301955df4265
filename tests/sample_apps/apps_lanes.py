"""Apps for workers with several lanes. Workers import this."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

from apps_control import hang, last, note, tally

import trio_dirty
from trio_dirty import RequestCancelled, SoftTimeout, check_cancelled, worker_info
from trio_dirty._worker import outcomes
from trio_dirty._worker.socket import WorkerSocket

SECONDS = 30.0
"""How long to wait for others that must come."""

setting: ContextVar[str] = ContextVar("setting", default="unset")


class Lanes(trio_dirty.App):
    """Shared by the lanes of its worker; most of it is one operation, and needs no lock."""

    def init(self) -> None:
        self.begun: list[Any] = []
        self.events: dict[str, threading.Event] = {}
        self.barriers: dict[int, threading.Barrier] = {}
        self.thread = threading.get_ident()
        setting.set("set in init")

    def event(self, name: str) -> threading.Event:
        return self.events.setdefault(name, threading.Event())

    # Together

    def meet(self, count: int) -> int:
        """Return when so many lanes are here at a time."""
        return self.barriers.setdefault(count, threading.Barrier(count)).wait(SECONDS)

    def set(self, name: str) -> None:
        self.event(name).set()

    def wait(self, name: str, value: Any = None) -> Any:
        self.begun.append(value)
        assert self.event(name).wait(SECONDS)
        return value

    def note_begun(self, value: Any) -> Any:
        self.begun.append(value)
        return value

    def all_begun(self) -> list[Any]:
        return self.begun

    def where(self) -> tuple[Any, ...]:
        """Tell where this is executed, when the other lanes are here too."""
        self.meet(3)
        info = tuple(worker_info())
        return threading.get_ident(), threading.get_ident() == self.thread, info, setting.get()

    def has_loaded(self, module: str) -> bool:
        return module in sys.modules

    def takes(self, data: bytes, begun: str, go: str) -> int:
        note(begun)
        last("sleep", go)
        return len(data)

    def thread_names(self) -> list[str]:
        return [thread.name for thread in threading.enumerate()]

    def echo(self, value: Any) -> Any:
        return value

    def fail(self, text: str) -> NoReturn:
        self.meet(2)
        raise LookupError(text)

    # Ends

    def begin_and_hang(self, path: str, how: str = "sleep") -> NoReturn:
        note(path, os.getpid())
        hang(how)

    def tally_and_last(self, path: str, go: str) -> None:
        tally(path)
        last("sleep", go)

    def tally_and_maybe_exit(self, path: str, exits: bool) -> None:
        tally(path)
        if exits:
            os._exit(7)

    def fork(self) -> tuple[int, int]:
        """Leave a child that returns from here as well; tell how it has ended."""
        link: Any
        [link] = [each for each in gc.get_objects() if isinstance(each, WorkerSocket)]
        link._sending.acquire()  # as another lane may have, that is not there in the child
        pid = os.fork()
        if not pid:
            return 0, 0
        link._sending.release()
        return os.waitpid(pid, 0)

    def shut_socket_down(self) -> None:
        """End the worker's socket under it."""
        for link in gc.get_objects():
            if isinstance(link, WorkerSocket):
                link._socket.shutdown(socket.SHUT_RDWR)

    def break_answer(self) -> None:
        """Have the worker's own code raise when it answers."""
        outcomes.OutcomeEncoder.result = lambda *_: 1 / 0  # type: ignore[assignment,return-value]

    # Told to stop

    def asks(self, begun: str, ended: str) -> None:
        note(begun)
        try:
            while True:
                check_cancelled()
        except RequestCancelled as error:
            note(ended, error)
            raise

    def asks_in_thread(self) -> str:
        """Ask in a thread that is no lane's."""
        found = []

        def ask() -> None:
            try:
                check_cancelled()
            except RuntimeError as error:
                found.append(str(error))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return found[0]

    def loops(self, begun: str) -> str:
        note(begun)
        try:
            hang("loop")
        except SoftTimeout as error:
            return f"in time: {error}"

    def loops_on(self, begun: str) -> NoReturn:
        note(begun)
        hang("loop")

    def lasts(self, how: str, begun: str, go: str) -> str:
        note(begun)
        last(how, go)
        return "lasted"

    def spin(self, seconds: float) -> float:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
        return seconds

    # Streams

    def numbers(self, count: int, start: int = 0) -> Iterator[int]:
        yield from range(start, start + count)

    def together(self, count: int, lanes: int) -> Iterator[int]:
        """Yield in step with other lanes."""
        for number in range(count):
            self.meet(lanes)
            yield number

    def sized(self, count: int, size: int) -> Iterator[bytes]:
        for number in range(count):
            yield bytes([number % 256]) * size

    def kept(self, name: str) -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            self.event(name).set()
