"""When a worker is asked for a sign of life, and when it is killed because it stands still."""

from types import SimpleNamespace

from trio_dirty._rules.health import STILL_LIMIT, Health


def look(health, *executing, still=True, closing=False, idle=False):
    return health.look([*executing], lambda: still, is_closing=closing, is_idle=idle)


def request(number=0, *, is_bounded=False):
    return SimpleNamespace(number=number, is_bounded=is_bounded)


def until_killed(health, *executing, **how):
    """Return how many looks it takes."""
    for count in range(10):
        if look(health, *executing, **how) == "kill":
            assert health.is_unresponsive
            return count + 1
    return None


def test_an_idle_one_is_asked_and_one_that_is_busy_or_retired_is_not():
    health = Health()
    assert look(health) is None
    assert health.is_pinged is health.is_unresponsive is False
    assert look(health, idle=True) == "ping"
    assert (health.ping, health.is_pinged) == (1, True)
    health.ponged()
    assert health.is_pinged is False
    assert look(health, idle=True) == "ping"
    assert health.ping == 2


def test_one_that_does_not_answer_is_killed_if_it_stands_still():
    health = Health()
    look(health, idle=True)
    assert until_killed(health, idle=True) == 1 + STILL_LIMIT  # the first look is to compare with
    health = Health()
    look(health, idle=True)
    assert until_killed(health, idle=True, still=False) is None
    assert not health.is_unresponsive


def test_one_that_does_not_close_is_killed_if_it_stands_still():
    assert until_killed(Health(), closing=True) == 1 + STILL_LIMIT


def test_one_that_executes_is_killed_if_it_stands_still():
    health, executed = Health(), request()
    assert until_killed(health, executed) == 1 + STILL_LIMIT


def test_what_a_time_out_will_end_is_left_to_that():
    assert until_killed(Health(), request(is_bounded=True)) is None
    assert until_killed(Health(), request(), request(1, is_bounded=True)) is None


def test_whoever_goes_on_in_between_is_not_killed():
    health = Health()
    for _ in range(5):
        assert [look(health, request()) for _ in range(STILL_LIMIT - 1)] == [None]
        assert look(health, request(), still=False) is None


def test_the_doubt_begins_anew_with_the_next_request():
    health = Health()
    for number in range(5):
        assert [look(health, request(number)) for _ in range(STILL_LIMIT)] == [None] * STILL_LIMIT
