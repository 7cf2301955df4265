"""Apps for the tests. Workers import this, so it imports neither trio nor pytest."""

import contextlib
import os
import threading
import time

import trio_dirty

LOG: list[tuple[int, int, int]] = []
"""What began, in simulated workers."""

LOG_VARIABLE = "TRIO_DIRTY_TEST_LOG"
"""Names the file in which processes write what began."""


def record(tag, seconds, dies=False, stubborn=False, fails=False, content=None, payload=None):
    """Begin, last, and return the tag, fail, or die. In a simulation the plan does what takes time.

    Args:
        content: what the result or the exception carries besides, see `bulk`.
        payload: of no matter, but for its size.
    """
    if begin(tag):
        last(seconds, stubborn)
        if dies:
            os._exit(9)
    if fails:
        raise PlannedError(tag, bulk(content))
    return with_bulk(tag, content)


def produce(
    tag, seconds, dies=False, stubborn=False, chunks=0, fails=False, content=None, payload=None
):
    """Begin, and yield so many chunks, each after a while; or die before the last."""
    is_real = begin(tag)

    def steps():
        for chunk in range(chunks):
            if is_real:
                last(seconds, stubborn)
                if dies and chunk == chunks - 1:
                    os._exit(9)
            yield with_bulk(chunk, content)
        if fails:
            raise PlannedError(tag, bulk(content))

    return steps()


class PlannedError(Exception):
    """Raised by an action that is to fail."""


def bulk(content):
    """Return an object of a kind and a size: ``content`` is both, or None."""
    if content is None:
        return None
    kind, size = content
    if kind == "int":
        return (1 << 8 * size) - 1
    if kind == "str":
        return "x" * size
    if kind == "list":
        return [None] * size
    return bytearray(size) if kind == "bytearray" else bytes(size)


def with_bulk(value, content):
    """Return a value, with an object of some size if there is to be one."""
    return value if content is None else (value, bulk(content))


def begin(tag):
    """Write down that a request begins; return whether that is in a process."""
    info = trio_dirty.worker_info()
    if info.pid != os.getpid():
        LOG.append((info.slot, info.worker, tag))
        return False
    # Appended to a file, it survives the death of the worker that wrote it.
    fd = os.open(os.environ[LOG_VARIABLE], os.O_WRONLY | os.O_APPEND)
    os.write(fd, f"{info.slot} {info.worker} {tag}\n".encode())
    os.close(fd)
    return True


def last(seconds, stubborn):
    end = time.monotonic() + seconds
    while stubborn and time.monotonic() < end:
        with contextlib.suppress(trio_dirty.SoftTimeout, trio_dirty.RequestCancelled):
            time.sleep(max(0, end - time.monotonic()))
    if not stubborn:
        time.sleep(seconds)


class Recorder(trio_dirty.App):
    """Records what begins."""

    def work(self, *how, **more):
        return record(*how, **more)

    def produce(self, *how, **more):
        return produce(*how, **more)


class OtherRecorder(trio_dirty.App):
    """A second app, so that apps take turns independently."""

    def work(self, *how, **more):
        return record(*how, **more)

    def produce(self, *how, **more):
        return produce(*how, **more)


class Counter(trio_dirty.App):
    """Counts, to show that state is kept."""

    def init(self):
        self.count = 0

    def add(self, amount=1):
        self.count += amount
        return self.count

    def info(self):
        return tuple(trio_dirty.worker_info())

    def echo(self, value):
        return value

    def fail(self, text):
        raise LookupError(text)

    def nap(self, seconds):
        if trio_dirty.worker_info().pid == os.getpid():  # in a simulation the plan does that
            time.sleep(seconds)
        return seconds

    def numbers(self, count):
        for number in range(count):
            self.count += 1
            yield number


THREADS: list[int] = []
"""Where probes were pickled or unpickled, in this process."""


class Probe:
    """Takes note of the thread in which it is pickled, and of that in which it arrives."""

    def __init__(self, size):
        self.size = size

    def __reduce__(self):
        THREADS.append(threading.get_ident())
        return revive, (bytes(self.size),)


def revive(content):
    THREADS.append(threading.get_ident())
    return Probe(len(content))


class FailsToBoot(trio_dirty.App):
    def init(self):
        raise OSError("no such model")


class DiesAtBoot(trio_dirty.App):
    def init(self):
        os._exit(7)
