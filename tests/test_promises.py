"""The promises of the pool, searched for counter-examples: simulated, and with real processes."""

import apps
import play
import pytest
import trio
from hypothesis import HealthCheck, given, settings, strategies as st

from trio_dirty._processes import ProcessEngine


@pytest.mark.parametrize("promise", play.PROMISES, ids=lambda p: p.__name__)
@given(script=play.scripts, flaky=st.booleans(), seed=st.random_module())
@settings(max_examples=150, deadline=None)
def test_promise_simulated(promise, script, flaky, seed):
    promise(play.play_simulated(script, flaky=flaky))


real_operations = st.one_of(
    play.requests,
    play.requests,
    st.tuples(st.just("advance"), st.integers(0, 5)),
    st.tuples(st.just("crash"), play.targets),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
)


@given(script=st.lists(real_operations, min_size=10, max_size=25), seed=st.random_module())
@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_promises_with_real_processes(script, seed, tmp_path, monkeypatch):
    path = tmp_path / "begun"
    path.write_text("")
    monkeypatch.setenv(apps.LOG_VARIABLE, str(path))
    log = play.Log()

    async def run():
        with play.observed(log), trio.fail_after(120):
            await play.play(script, ProcessEngine(), log, unit=0.005, crash=play.kill_worker)

    trio.run(run)
    log.begun = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    play.judge(log)
