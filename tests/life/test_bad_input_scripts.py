"""Programs as users run them: other switches, no guard, daemonic, forked without exec."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import trio
from scripts.harness import PATIENCE, gone, killed_at_end, run_script, running, until

ORPHAN_SECONDS = 2.0
"""What the pool promises; the kernel needs milliseconds."""


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ((), "False 0 []"),
        (("-X", "dev", "-W", "error"), "True 0 ['default', 'error']"),
        (("-O",), "False 1 []"),
        (("-OO", "-W", "error"), "False 2 ['error']"),
    ],
)
async def test_a_program_runs_with_every_switch(options: tuple[str, ...], flags: str) -> None:
    done = await run_script("plain.py", options=options)
    lines = done.stdout.splitlines()
    assert lines == [flags, "[1, 2, 3]", "2000000", "crashed with 3", "1", "done"]
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_program_without_the_guard_ends_and_is_told_of_it() -> None:
    done = await run_script("no_guard.py")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        r"[\w.]+AppLoadError: the worker of slot [01] could not start: process \d+ exited "
        r"with code 1 before it had connected to the pool. Its own output tells more. Each worker "
        r"imports the program's main module again, so a script must call trio.run\(\) under "
        r"`if __name__ == '__main__':`",
        last,
    )
    assert done.stderr.count("AppLoadError") == 1  # the program's; the workers make no pool
    assert re.search(
        r"DirtyError: a pool cannot be opened here: this process is a worker that imports the "
        r"program's main module. In a script, call trio.run\(\) under "
        r"`if __name__ == '__main__':`\n",
        done.stderr,
    )
    assert "Exception Group" not in done.stderr


async def test_an_uncaught_error_is_named_by_its_public_place() -> None:
    done = await run_script("no_guard.py")
    assert done.stderr.strip().splitlines()[-1].startswith("trio_dirty.AppLoadError: ")


async def test_a_program_of_the_command_line_runs(tmp_path: Path) -> None:
    # There is no main module that workers could import, and none is needed.
    script = tmp_path / "program.py"
    script.write_text(
        "import subprocess, sys\n"
        "text = '''import math, trio, trio_dirty\n"
        "async def main():\n"
        "    async with trio_dirty.open_pool(['apps_bad:Bad'], workers=1) as pool:\n"
        "        print(await pool.run_sync(math.factorial, 5))\n"
        "        print(await pool.execute('apps_bad:Bad', 'echo', 6))\n"
        "trio.run(main)'''\n"
        "subprocess.run([sys.executable, '-c', text], check=True)\n"
    )
    done = await run_script(script)
    assert (done.stdout, done.stderr) == ("120\n6\n", "")


async def test_a_pool_in_a_daemonic_process_is_refused_and_hypercorn_is_helped() -> None:
    done = await run_script("daemonic.py")
    assert done.stdout.startswith("DirtyError a pool cannot be opened here: this process is a daem")
    assert "set daemon = false in its TOML file and leave it at one worker" in done.stdout
    assert "hypercorn.trio.serve, with a shutdown_trigger that waits for SIGTERM" in done.stdout
    assert "-w 0" not in done.stdout, "which ends the program at SIGTERM without close()"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_worker_dies_with_a_parent_whose_forked_child_lives_on(
    tmp_path: Path, end: signal.Signals
) -> None:
    async with running("forking.py", errors=tmp_path / "errors") as program:
        worker, child, after = await program.numbers()
        assert after == worker  # the pool has gone on serving in the parent
        async with killed_at_end(child):
            os.kill(program.pid, end)
            await until(lambda: gone(worker), ORPHAN_SECONDS)
            assert not gone(child)


async def test_a_forked_child_that_ends_does_no_harm_to_the_pool(tmp_path: Path) -> None:
    async with running("forking.py", errors=tmp_path / "errors") as program:
        worker, child, _ = await program.numbers()
        os.kill(child, signal.SIGTERM)
        await until(lambda: gone(child))
        assert not gone(worker)
        os.kill(program.pid, signal.SIGINT)
        with trio.fail_after(PATIENCE):
            await program.process.wait()
        assert gone(worker)


async def test_workers_import_no_trio(tmp_path: Path) -> None:
    done = await run_script("imports.py")
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)
