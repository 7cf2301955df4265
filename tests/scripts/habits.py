"""Programs that do with their process what programs do, each a function: its name is the argument.

What each prints is what its test expects.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import trio
from apps_bad import Bad
from apps_lives import Lasting
from harness import children, until

import trio_dirty
from trio_dirty._engines import handshake, processes

QUICK: dict[str, Any] = {"grace_period": 60, "boot_timeout": 60}


async def crash(pool: trio_dirty.Pool) -> trio_dirty.WorkerCrashedError:
    try:
        await pool.run_sync(Bad.die, 3)
    except trio_dirty.WorkerCrashedError as error:
        return error
    raise AssertionError("it lives")


def has_another(pool: trio_dirty.Pool, pid: int) -> bool:
    return pool.statistics().workers[0].pid not in (pid, None)


async def suffer(deaths: int) -> None:
    """Have workers die in every way, and leave the block in both."""
    for way in ("normally", "by cancellation"):
        with trio.CancelScope() as scope:
            async with trio_dirty.open_pool([Lasting], workers=1, **QUICK) as pool:
                error = await crash(pool)
                # A reaper may come too late for it.
                is_told = "; its exit code is unknown, since the program ignores" in str(error)
                print(is_told if error.exitcode is None else error.exitcode == 3)
                for _ in range(deaths):
                    await crash(pool)
                    assert await pool.run_sync(Bad.echo, 1) == 1
                try:
                    await pool.with_options(timeout=0.1).run_sync(Lasting.sleep, 600)
                except trio_dirty.RequestTimeoutError:
                    print("timed out")
                pid = await pool.run_sync(Bad.pid)
                os.kill(pid, signal.SIGKILL)
                await until(partial(has_another, pool, pid))
                known = multiprocessing.process._children  # type: ignore[attr-defined]
                assert len(known) == 1, known  # as many as there are workers
                if way == "by cancellation":
                    scope.cancel()
                    await trio.sleep_forever()
        assert not known, known
        assert not children()
        print("left", way)


# Who learns of the end of a child


def ignores_sigchld() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    trio.run(suffer, 5)


def inherits_ignored_sigchld() -> None:
    if signal.getsignal(signal.SIGCHLD) != signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    trio.run(suffer, 1)


def reaps_in_a_handler() -> None:
    def reap(*_: object) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass

    signal.signal(signal.SIGCHLD, reap)
    trio.run(suffer, 5)


def reaps_in_a_thread() -> None:
    def reap() -> None:
        pause = threading.Event()
        while True:
            with suppress(ChildProcessError):
                os.waitpid(-1, 0)
            pause.wait(0.001)

    threading.Thread(target=reap, daemon=True).start()
    trio.run(suffer, 5)


# Descriptors


class Steps(trio.abc.Instrument):
    """Counts the steps of all tasks."""

    count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


def exhaust_descriptors() -> list[int]:
    taken = []
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    return taken


def give_back(taken: list[int]) -> None:
    while taken:
        os.close(taken.pop())


def runs_out_of_descriptors(*, where: str, for_ever: bool) -> None:
    """Have none left from when a worker has been started, or has been accepted."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, most))
    handshake.SHORTAGE_SECONDS = 1.0 if for_ever else 60.0
    steps = Steps()
    taken: list[int] = []

    async def accept(*args: Any) -> Any:
        if where == "accept":
            taken.extend(exhaust_descriptors())
            steps.count = 0
        return await original(*args)

    async def relent() -> None:
        """Give back when it has been tried for some time."""
        while not taken or steps.count < 20:  # noqa: ASYNC110
            await trio.sleep(0.05)
        give_back(taken)

    async def proved(*args: Any) -> Any:
        if where == "token" and not taken:
            taken.extend(exhaust_descriptors())
            steps.count = 0
        return await original_proved(*args)

    original, processes.accept_worker = processes.accept_worker, accept
    original_proved, handshake._proved = handshake._proved, proved

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            if not for_ever:
                nursery.start_soon(relent)
            try:
                async with trio_dirty.open_pool([Lasting], workers=1) as pool:
                    print(await pool.run_sync(Bad.echo, "opened"))
            except trio_dirty.AppLoadError as error:
                print(error)
        give_back(taken)
        print("few steps" if steps.count < 500 else f"{steps.count} steps")

    trio.run(main, instruments=[steps])


# Rights


def keep_reading() -> None:
    """Be able to start Python also after `give_up_root`, wherever Python is.

    To be called while there is one thread: capabilities are each thread's own.
    """
    libc = ctypes.CDLL(None)
    pr_set_securebits, secbit_no_setuid_fixup = 28, 4
    pr_cap_ambient, pr_cap_ambient_raise = 47, 2
    cap_dac_override, cap_setgid, cap_setuid = 1, 6, 7
    assert libc.prctl(pr_set_securebits, secbit_no_setuid_fixup, 0, 0, 0) == 0
    kept = 1 << cap_dac_override
    own = kept | 1 << cap_setgid | 1 << cap_setuid
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    assert libc.capset(header, (ctypes.c_uint32 * 6)(own, own, kept, 0, 0, 0)) == 0
    assert libc.prctl(pr_cap_ambient, pr_cap_ambient_raise, cap_dac_override, 0, 0) == 0


def give_up_root() -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


async def refused(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    return False


async def timed_out(pool: trio_dirty.Pool, action: Callable[..., Any], *args: Any) -> None:
    try:
        await pool.run_sync(action, *args)
    except trio_dirty.RequestTimeoutError as error:
        print("timed out,", "softly" if error.soft else "killed")


def gives_up_root(directory: str) -> None:
    keep_reading()

    async def main() -> None:
        async with trio_dirty.open_pool([Lasting], workers=6, **QUICK) as pool:
            first = [worker.pid or 0 for worker in pool.statistics().workers]
            give_up_root()
            print(all([await refused(pid) for pid in first]))
            begun = Path(directory, "begun")
            limited = pool.with_options(timeout=0.2)
            await timed_out(limited, Bad.hang, str(begun))
            await timed_out(limited, Lasting.hold_lock, str(begun))
            await timed_out(
                pool.with_options(soft_timeout=0.2), Lasting.ask_again_and_again, str(begun)
            )
            # What asks might end before it is killed.
            calls: list[tuple[Any, Callable[..., Any]]] = [
                ("kill", Bad.hang),
                ("interrupt", Lasting.ask_again_and_again),
            ]
            for on_cancel, action in calls:
                begun = Path(directory, on_cancel)
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        view = pool.with_options(on_cancel=on_cancel)
                        nursery.start_soon(view.run_sync, action, str(begun))
                        await until(begun.exists)
                        scope.cancel()
                await until(lambda: not pool.statistics().running)
                await until(lambda: pool.statistics().restarts_by_cause == {"killed": 3})
                print(on_cancel, scope.cancelled_caught)

            def all_ready() -> bool:
                return {worker.state for worker in pool.statistics().workers} == {"ready"}

            await until(all_ready)
            now = [worker.pid or 0 for worker in pool.statistics().workers]
            new = [pid for pid in now if pid not in first]
            print(len(new), "new,", not any([await refused(pid) for pid in new]))
            assert await pool.broadcast(Bad.echo, 1) == [1] * 6
        print("left normally", children())

    trio.run(main)


def gives_up_root_and_leaves(directory: str) -> None:
    """Leave by cancellation, past grace_period, and while workers boot."""

    async def main(how: str) -> None:
        begun = Path(directory, f"begun {how}")
        with trio.CancelScope() as scope:
            async with (
                trio.open_nursery() as nursery,
                trio_dirty.open_pool(
                    [Lasting], workers=2, cancel_grace=0.1, grace_period=0.2
                ) as pool,
            ):
                give_up_root()
                if how == "stubborn":
                    with trio.CancelScope() as call:
                        nursery.start_soon(cancel_when, call, begun)
                        view = pool.with_options(on_cancel="interrupt")
                        await view.run_sync(Lasting.hold_lock, str(begun))
                    await until(lambda: pool.statistics().restarts_by_cause.get("killed"))
                    return
                nursery.start_soon(call_for_ever, pool, begun)
                await until(begun.exists)
                if how == "cancelled":
                    scope.cancel()
        print("left,", how, children())

    for how in ("cancelled", "grace", "stubborn"):
        pid = os.fork()
        if not pid:
            trio.run(main, how)
            print("ended,", how, children(), flush=True)
            os._exit(0)
        os.waitpid(pid, 0)


async def cancel_when(call: trio.CancelScope, begun: Path) -> None:
    await until(begun.exists)
    call.cancel()


async def call_for_ever(pool: trio_dirty.Pool, begun: Path) -> None:
    with suppress(trio.ClosedResourceError):
        await pool.run_sync(Bad.hang, str(begun))


def gives_up_root_while_a_worker_starts(directory: str) -> None:
    """Cancel the boot of one that has not connected, and never will."""

    async def main() -> None:
        before = children()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def give_up() -> None:
                    await until(Path(directory, "imported").exists)
                    give_up_root()
                    (pid,) = children() - before
                    print(await refused(pid))
                    scope.cancel()

                nursery.start_soon(give_up)
                async with trio_dirty.open_pool([Lasting], workers=1):
                    print("never")
        print("left", children() - before)

    trio.run(main)


# multiprocessing beside the pool


def exit_with(code: int) -> None:
    sys.exit(code)


def double(number: int) -> int:
    return 2 * number


def wait_for(event: Any) -> None:
    event.wait()


def uses_multiprocessing() -> None:
    spawn, fork = multiprocessing.get_context("spawn"), multiprocessing.get_context("fork")
    event = spawn.Event()
    before = [context.Process(target=wait_for, args=[event]) for context in (spawn, fork)]
    for process in before:
        process.start()

    async def main() -> None:
        async with trio_dirty.open_pool([Lasting], workers=2, **QUICK) as pool:
            during = [context.Process(target=exit_with, args=[7]) for context in (spawn, fork)]
            for process in during:
                process.start()
            with spawn.Pool(2) as beside:
                print(await trio.to_thread.run_sync(beside.map, double, [1, 2, 3]))
            assert (await crash(pool)).exitcode == 3
            assert len(multiprocessing.active_children()) >= 3
            print(await pool.run_sync(Bad.echo, "served"))
            for process in during:
                await trio.to_thread.run_sync(process.join)
                print(process.exitcode)
            assert (await crash(pool)).exitcode == 3
        print([process.is_alive() for process in before])

    trio.run(main)
    event.set()
    after = [context.Process(target=exit_with, args=[8]) for context in (spawn, fork)]
    for process in after:
        process.start()
    for process in [*before, *after]:
        process.join()
        print(process.exitcode)
    print(multiprocessing.active_children())


# Streams, directories


def closes_its_standard_streams(when: str, directory: str) -> None:
    """Have none, as a daemon may; and workers that print, and run programs.

    Closed before trio runs, their numbers are those of its own descriptors, which no worker has.
    """

    async def main() -> None:
        if when == "in the middle":
            close_standard_streams()
        async with trio_dirty.open_pool([Lasting], workers=2, **QUICK) as pool:
            results: list[Any] = []
            for _ in range(4):
                results.append(await pool.run_sync(Bad.print_megabyte))
                results.append(await pool.run_sync(os.write, 2, b"to standard error"))
            results.append(await pool.run_sync(Bad.run_program))
            results.append((await crash(pool)).exitcode)
            results.append(await pool.run_sync(Bad.echo, "served"))
        results.append(len(children()))
        said.write(repr(results))

    with open(Path(directory, "said"), "w") as said:  # its number is none of these
        if when == "before":
            close_standard_streams()
        trio.run(main)


def close_standard_streams() -> None:
    for number in range(3):
        os.close(number)


def moves(directory: str) -> None:
    """Import an app from a relative path, and go elsewhere."""
    home = Path(directory, "home")
    Path(home, "lib").mkdir(parents=True)
    elsewhere = Path(directory, "elsewhere")
    elsewhere.mkdir()
    Path(home, "lib", "nomad.py").write_text(
        "import os, trio_dirty\n"
        "class Nomad(trio_dirty.App):\n"
        "    def where(self): return os.path.basename(os.getcwd())\n"
        "    def die(self): os._exit(3)\n"
    )
    os.chdir(home)
    sys.path.insert(0, "lib")

    async def main() -> None:
        async with trio_dirty.open_pool(["nomad:Nomad"], workers=1, **QUICK) as pool:
            print(await pool.execute("nomad:Nomad", "where"))
            os.chdir(elsewhere)
            with suppress(trio_dirty.WorkerCrashedError):
                await pool.execute("nomad:Nomad", "die")
            print(await pool.execute("nomad:Nomad", "where"))
            await pool.reload()
            print(await pool.execute("nomad:Nomad", "where"))
            os.rmdir(elsewhere)
            try:
                await pool.reload()
            except trio_dirty.AppLoadError as error:
                print(error)
            print(await pool.run_sync(double, 4))
        try:
            async with trio_dirty.open_pool([], workers=1):
                pass
        except trio_dirty.AppLoadError as error:
            print(error)

    trio.run(main)


def loses_its_temporary_directory() -> None:
    directory = tempfile.mkdtemp()
    tempfile.tempdir = directory

    async def main() -> None:
        async with trio_dirty.open_pool([Lasting], workers=1, **QUICK) as pool:
            shutil.rmtree(directory)
            await crash(pool)
            print(await pool.run_sync(Bad.echo, "replaced"))
            handshake.ANYWHERE = directory
            with suppress(trio_dirty.AppLoadError):
                await pool.reload()
            print(await pool.run_sync(Bad.echo, "kept"))
        try:
            async with trio_dirty.open_pool([Lasting], workers=1):
                pass
        except trio_dirty.AppLoadError as error:
            print(str(error).replace(directory, "/nowhere").rpartition("-")[0])

    trio.run(main)


def looks_for_what_is_left() -> None:
    """Print what a block that was left has left of processes."""

    async def main() -> None:
        async with trio_dirty.open_pool([Lasting], workers=2, **QUICK) as pool:
            await crash(pool)
        for process in psutil.Process().children(recursive=True):
            print("resource_tracker" in " ".join(process.cmdline()))

    trio.run(main)


HABITS: list[Callable[..., None]] = [
    ignores_sigchld,
    inherits_ignored_sigchld,
    reaps_in_a_handler,
    reaps_in_a_thread,
    gives_up_root,
    gives_up_root_and_leaves,
    gives_up_root_while_a_worker_starts,
    uses_multiprocessing,
    closes_its_standard_streams,
    moves,
    loses_its_temporary_directory,
    looks_for_what_is_left,
]

if __name__ == "__mp_main__" and sys.argv[1:2] == ["gives_up_root_while_a_worker_starts"]:
    Path(sys.argv[2], "imported").touch()
    threading.Event().wait()

if __name__ == "__main__":
    logging.disable()
    name, *arguments = sys.argv[1:]
    if name == "runs_out_of_descriptors":
        runs_out_of_descriptors(where=arguments[0], for_ever=arguments[1] == "for ever")
    else:
        {habit.__name__: habit for habit in HABITS}[name](*arguments)
