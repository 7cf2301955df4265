"""What kills a worker that has not connected, where signals are not permitted."""

import subprocess
import sys
import threading

import pytest

from trio_dirty._engines.handshake import KillSwitch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux does it")

PROGRAMS = 200


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_switch_kills_when_it_is_closed(sleeper):
    switch = KillSwitch.of(sleeper.pid)
    assert switch is not None
    switch.close()
    assert sleeper.wait() == -9


def test_a_switch_that_is_disarmed_kills_nobody_while_other_processes_are_started(sleeper):
    """Each of them has copies of both ends for a moment, and the kernel lets go of them."""

    def start_programs():
        for _ in range(PROGRAMS):
            subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=start_programs) for _ in range(2)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        switch = KillSwitch.of(sleeper.pid)
        assert switch is not None
        switch.disarm()
        switch.disarm()
        assert sleeper.poll() is None
