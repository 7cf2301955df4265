"""Apps that misbehave in every way, for the tests of bad input, hostile actions and lives."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import trio_dirty
from trio_dirty._common import segments
from trio_dirty._worker import loop


def log(line: str) -> None:
    """Append to the file that the variable BAD_LOG of the environment names."""
    fd = os.open(os.environ["BAD_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{line}\n".encode())
    os.close(fd)


def explode() -> NoReturn:
    raise ValueError("exploded while it was unpickled")


class DoesNotPickle:
    def __reduce__(self) -> NoReturn:
        raise ValueError("exploded while it was pickled")


class DoesNotUnpickle:
    def __reduce__(self) -> tuple[Any, ...]:
        return explode, ()


class ExitsWhenUnpickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (5,)


class DiesWhenPickled:
    def __reduce__(self) -> tuple[Any, ...]:
        os._exit(6)


class ReduceRaisesError(Exception):
    def __reduce__(self) -> NoReturn:
        raise ValueError("no way")


class ReduceIsNonsenseError(Exception):
    def __reduce__(self) -> Any:
        return 17


class ReducesToTextError(Exception):
    def __reduce__(self) -> tuple[Any, ...]:
        return str, ("not an exception",)


class TwoArgumentsError(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class KeywordOnlyError(Exception):
    def __init__(self, *, code: int) -> None:
        super().__init__(f"code {code}")


class HoldsALockError(Exception):
    def __init__(self) -> None:
        super().__init__("locked")
        self.lock = threading.Lock()


class NoTextError(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class EndsEverythingError(BaseException):
    pass


class RefusesAttributesError(Exception):
    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"cannot set {name}")


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class Bad(trio_dirty.App):
    """One well-behaved action, `echo`, and many that are not."""

    not_callable = 1

    def echo(self, value: Any) -> Any:
        return value

    def pid(self) -> int:
        return os.getpid()

    def ppid(self) -> int:
        return os.getppid()

    def modules(self) -> list[str]:
        return sorted(sys.modules)

    def _secret(self) -> str:
        return "secret"

    async def asynchronous(self) -> int:
        return 1

    async def async_generator(self) -> Any:
        yield 1

    def generator(self) -> Iterator[int]:
        yield 1

    # Results and exceptions

    def return_made(self, kind: type[Any]) -> Any:
        return kind()

    def return_large(self, kind: type[Any]) -> Any:
        return bytes(1_000_000), kind(), bytes(1_000_000)

    def raise_made(self, kind: type[BaseException], *args: Any, **kwargs: Any) -> NoReturn:
        raise kind(*args, **kwargs)

    def nested_list(self) -> list[Any]:
        nested: list[Any] = []
        for _ in range(1_000_000):
            nested = [nested]
        return nested

    def ones(self, size: int) -> bytes:
        return b"\1" * size

    # Ends

    def exit(self, code: object) -> NoReturn:
        sys.exit(code)  # type: ignore[arg-type]

    def die(self, code: int) -> NoReturn:
        os._exit(code)

    def die_by(self, number: int) -> None:
        os.kill(os.getpid(), number)

    def hang(self, begun: str) -> None:
        Path(begun).touch()
        time.sleep(600)

    def hold_lock(self, begun: str) -> None:
        """Keep the interpreter lock for minutes."""
        Path(begun).touch()
        re.match("(a+)+$", "a" * 34 + "b")

    # Resources

    def run_out_of_memory(self, where: str) -> None:
        """Have the worker's own code meet the want of memory in a place."""

        def fail(*_: object) -> NoReturn:
            raise MemoryError(where)

        if where == "argument":
            vars(segments)["bytearray"] = fail
        elif where == "rest of the argument":
            vars(segments)["bytearray"] = fail
            vars(segments)["_WASTE"] = None
        else:
            loop.OutcomeEncoder.error = fail  # type: ignore[method-assign]

    def close_descriptors(self) -> None:
        os.closerange(0, 1000)

    def close_descriptors_and_hang(self) -> None:
        os.closerange(0, 1000)
        time.sleep(600)

    def close_sockets_and_hang(self) -> None:
        for number in range(3, 1000):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(number).st_mode):
                    os.close(number)
        time.sleep(600)

    def recurse(self) -> None:
        self.recurse()

    def use_memory(self, chunk: int) -> NoReturn:
        """Take all memory that a limit leaves, and still hold it when the error is raised."""
        with open("/proc/self/statm") as statm:
            used = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.RLIM_INFINITY))
        hoard = []
        while True:
            hoard.append(bytearray(chunk))

    def print_megabyte(self) -> int:
        for stream in (sys.stdout, sys.stderr):
            for _ in range(16):
                print("x" * 65_535, file=stream, flush=True)
        return os.write(1, b"x" * 1000)

    def read_stdin(self) -> str:
        return sys.stdin.read()

    # Children and threads

    def fork(self) -> int:
        """Return the number of a child that lives on, as the at-fork handlers leave it."""
        if pid := os.fork():
            return pid
        signal.pause()
        os._exit(0)

    def c_fork(self) -> int:
        """Return the number of a child that lives on and holds all that its parent has open."""
        if pid := ctypes.CDLL(None).fork():
            return int(pid)
        signal.pause()
        os._exit(0)

    def c_fork_and_hang(self, begun: str) -> None:
        pid = self.c_fork()
        Path(begun + ".part").write_text(str(pid))
        Path(begun + ".part").rename(begun)
        time.sleep(600)

    def fork_twice(self, how: str) -> tuple[int, bool]:
        """Return in the parent and in the child, which must not be heard."""
        pid = os.fork()
        if pid == 0:
            if how == "raise":
                raise ValueError("from the child")
            if how == "exit":
                sys.exit(3)
            if how == "large":
                return 0, bytes(5_000_000)  # type: ignore[return-value]
        else:
            os.waitpid(pid, 0)
        return pid, pid != 0

    def start_multiprocessing(self) -> None:
        from multiprocessing import get_context

        get_context("spawn").Process(target=explode).start()

    def run_program(self) -> str:
        return subprocess.run(
            [sys.executable, "-c", "print('a program')"], capture_output=True, text=True, check=True
        ).stdout

    def leave_threads(self) -> int:
        for _ in range(5):
            threading.Thread(target=time.sleep, args=(600,)).start()
        return threading.active_count()

    def open_pool(self) -> None:
        import trio

        async def main() -> None:
            async with trio_dirty.open_pool([Bad], workers=1):
                pass

        trio.run(main)


# Apps that share an action


class Parent(trio_dirty.App):
    def shared(self) -> str:
        return type(self).__name__


class First(Parent):
    pass


class Second(Parent):
    pass


# What is no app


class NoMethods:
    pass


class NoInit:
    def __call__(self, action: str) -> None: ...
    def close(self) -> None: ...


class NoCall:
    def init(self) -> None: ...
    def close(self) -> None: ...


class NoClose:
    def init(self) -> None: ...
    def __call__(self, action: str) -> None: ...


class Duck:
    """An app that inherits nothing."""

    def init(self) -> None: ...

    def __call__(self, action: str, *args: Any) -> Any:
        return action, args

    def close(self) -> None: ...


# Apps that do not boot


class ConstructorRaises(trio_dirty.App):
    def __init__(self) -> None:
        raise ZeroDivisionError("the constructor is broken")


class ConstructorNeedsArgument(trio_dirty.App):
    def __init__(self, model: str) -> None: ...


class ConstructorExits(trio_dirty.App):
    def __init__(self) -> None:
        sys.exit("the constructor has had enough")


class ConstructorDies(trio_dirty.App):
    def __init__(self) -> None:
        os._exit(7)


class ConstructorHangs(trio_dirty.App):
    def __init__(self) -> None:
        time.sleep(600)


class InitRaises(trio_dirty.App):
    def init(self) -> None:
        raise ZeroDivisionError("the model is broken")


class InitExits(trio_dirty.App):
    def init(self) -> None:
        sys.exit("init has had enough")


class InitDies(trio_dirty.App):
    def init(self) -> None:
        os._exit(8)


class InitIsKilled(trio_dirty.App):
    def init(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class InitHangs(trio_dirty.App):
    def init(self) -> None:
        if "BAD_LOG" in os.environ:
            log(f"init {os.getpid()}")
        time.sleep(600)


class InitHoldsLock(trio_dirty.App):
    def init(self) -> None:
        re.match("(a+)+$", "a" * 34 + "b")


class BootsOnce(Bad):
    """Boots in one worker only."""

    def init(self) -> None:
        os.close(os.open(os.environ["BAD_LOG"], os.O_CREAT | os.O_EXCL))


# Apps that tell of their lives


class Logged(Bad):
    def init(self) -> None:
        log(f"init {type(self).__name__} {os.getpid()}")

    def close(self) -> None:
        log(f"close {type(self).__name__} {os.getpid()}")


class LoggedToo(Logged):
    pass


class CloseRaises(Logged):
    def close(self) -> None:
        raise ZeroDivisionError("close is broken")


class CloseExits(Logged):
    def close(self) -> None:
        sys.exit("close has had enough")


class CloseDies(Logged):
    def close(self) -> None:
        os._exit(9)


class CloseHangs(Logged):
    def close(self) -> None:
        log("hanging")
        time.sleep(600)


class Declares(trio_dirty.App):
    workers = 2


class DeclaresNothing(trio_dirty.App):
    workers = 0


class DeclaresText(trio_dirty.App):
    workers = "2"  # type: ignore[assignment]
