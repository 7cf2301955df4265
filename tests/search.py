"""Search the fault scripts for one that breaks a promise: ``python tests/search.py EXAMPLES``.

Says how many were played; fails with the smallest script that breaks a promise.
"""

import sys

import play
import promises
from hypothesis import HealthCheck, given, settings, strategies as st


def search(examples: int) -> int:
    """Play so many scripts; return how many were played."""
    played = 0

    @given(script=play.scripts, seed=st.random_module())
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    def keeps_its_promises(script, seed):
        nonlocal played
        promises.judge(play.play_simulated(script))
        played += 1

    keeps_its_promises()
    return played


if __name__ == "__main__":
    print(search(int(sys.argv[1])), "scripts played")
