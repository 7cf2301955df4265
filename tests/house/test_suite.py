"""Tests that use a pool leave nothing behind, however they end."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from scripts.harness import HERE, ORPHAN_SECONDS, PATIENCE, environment, until

SUITE = HERE / "suite.py"


def session(leader):
    """Return the processes of a session that are left."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            pass
    return found


@pytest.mark.parametrize(
    ("how", "code"), [("passes", 0), ("fails", 1), ("interrupted", 1), ("killed", -9)]
)
async def test_nothing_is_left_of_a_test_that(how, code, tmp_path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_trio"]
    variables = {"HOW": how, "BEGUN": str(tmp_path / "begun"), "TMPDIR": str(temporary)}
    program = subprocess.Popen(  # noqa: ASYNC220
        [*command, "--rootdir", str(tmp_path), "-o", "trio_mode=true", str(SUITE)],
        env={**environment(), **variables},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = program.communicate(timeout=PATIENCE)
        assert program.returncode == code, output
        await until(lambda: not session(program.pid), ORPHAN_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait()
    assert [path.name for path in temporary.iterdir() if "trio_dirty" in path.name] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["begun", "tmp"]
