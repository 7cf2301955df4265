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


def record(tag, seconds, dies=False, stubborn=False):
    """Begin, last, and return the tag or die. In a simulation the plan does the latter two."""
    if begin(tag):
        last(seconds, stubborn)
        if dies:
            os._exit(9)
    return tag


def produce(tag, seconds, dies=False, stubborn=False, chunks=0):
    """Begin, and yield so many chunks, each after a while; or die before the last."""
    is_real = begin(tag)

    def steps():
        for chunk in range(chunks):
            if is_real:
                last(seconds, stubborn)
                if dies and chunk == chunks - 1:
                    os._exit(9)
            yield chunk

    return steps()


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

    def work(self, *how):
        return record(*how)

    def produce(self, *how):
        return produce(*how)


class OtherRecorder(trio_dirty.App):
    """A second app, so that apps take turns independently."""

    def work(self, *how):
        return record(*how)

    def produce(self, *how):
        return produce(*how)


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
