"""Workers of programs, and actions, that deal with signals in their own ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from apps_control import Control
from apps_signals import Signals
from calling import Calling
from scripts.harness import PATIENCE, run_script, until

from trio_dirty import RequestTimeoutError, open_pool


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("how", ["block", "ignore", "thread"])
async def test_what_a_program_blocks_or_ignores_its_workers_do_not(
    how: str, threads: int, tmp_path: Path
) -> None:
    done = await run_script("masked.py", how, str(threads), str(tmp_path / "begun"))
    assert (done.stdout.split(), done.stderr) == (["soft", "0", "7", "0"], "")


@pytest.mark.parametrize("how", ["block", "ignore", "handle"])
async def test_an_action_spoils_no_interrupt_of_a_later_one(how: str, tmp_path: Path) -> None:
    begun, never = tmp_path / "begun", tmp_path / "never"
    with trio.fail_after(PATIENCE):
        async with open_pool([Control, Signals], workers=1, cancel_grace=None) as pool:
            await pool.run_sync(Signals.spoil, how)
            call = Control.last, "sleep", str(begun), str(never)
            with pytest.raises(RequestTimeoutError) as caught:
                await pool.with_options(soft_timeout=0.1).run_sync(*call)
            assert caught.value.soft
            begun.unlink()
            await pool.run_sync(Signals.spoil, how)
            async with trio.open_nursery() as nursery:
                view = pool.with_options(on_cancel="interrupt")
                calling = Calling.begin(nursery, view.run_sync, *call)
                await until(begun.exists)
                await calling.cancel()
            assert await pool.run_sync(Control.add) > 0
            # The same for what is large, and for a stream.
            await pool.run_sync(Signals.spoil, how)
            view = pool.with_options(soft_timeout=0.1)
            with pytest.raises(RequestTimeoutError):
                await view.run_sync(Control.last, "sleep", str(begun), str(never) + "n" * 200_000)
            assert pool.statistics().restarts == 0
