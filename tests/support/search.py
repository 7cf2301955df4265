"""Search the fault scripts for one that breaks a promise.

``python tests/support/search.py EXAMPLES`` says how many were played, and fails with the
smallest script that breaks a promise. No two searches are alike, unless a seed follows.
"""

import secrets
import sys
from pathlib import Path

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS), str(TESTS / "sample_apps")]

import play  # noqa: E402
import promises  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings, strategies as st  # noqa: E402


def search(examples: int, number: int) -> int:
    """Play so many scripts; return how many were played."""
    played = 0

    @seed(number)
    @given(script=play.scripts, schedule=st.random_module())
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    def keeps_its_promises(script, schedule):
        nonlocal played
        promises.judge(play.play_simulated(script))
        played += 1

    keeps_its_promises()
    return played


if __name__ == "__main__":
    number = int(sys.argv[2]) if len(sys.argv) > 2 else secrets.randbits(32)
    print(search(int(sys.argv[1]), number), "scripts played with seed", number)
