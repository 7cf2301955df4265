"""A worker's frames as the replies that they report, and its failures as exceptions."""

import pickle
import traceback

import pytest
from apps_bad import (
    DoesNotUnpickle,
    EndsEverythingError,
    ExitsWhenUnpickled,
    FrozenError,
    ReducesToTextError,
    RefusesAttributesError,
    TwoArgumentsError,
)
from hypothesis import given, strategies as st
from messages import whole

from trio_dirty import RemoteError
from trio_dirty._common import wire
from trio_dirty._common.errors import RemoteTraceback
from trio_dirty._common.segments import SegmentsCutError
from trio_dirty._engines.replies import ChunkFailure, chunk, reply
from trio_dirty._worker.outcomes import FOLLOWS


def loaded(kind, value):
    """Return the reply to a request that has number 7 and took half a second."""
    return reply(kind, 7, 0.5, pickle.loads, pickle.dumps(value))


def failing_with(error):
    def load():
        raise error

    return load


def raised(error, text="the text", kind="the.kind", remote="the traceback"):
    """Return the exception that the caller gets for one that was raised in the worker."""
    pickled = None if error is None else pickle.dumps(error)
    number, seconds, arrived, value = loaded(wire.ERROR, (text, kind, remote, pickled))
    assert (number, seconds, value) == (7, 0.5, None)
    return arrived


def assert_stands_in(error, text):
    assert type(error) is RemoteError
    assert str(error) == text
    assert (error.type_name, error.remote_traceback) == ("the.kind", "the traceback")


@given(st.one_of(st.none(), st.integers(), st.binary()))
def test_a_result_is_reported_with_its_duration(value):
    assert loaded(wire.RESULT, value) == (7, 0.5, None, value)


def test_a_result_may_be_loaded_from_several_sources():
    assert reply(wire.RESULT, 1, 2.0, max, 3, 4) == (1, 2.0, None, 4)


def test_a_skipped_request_has_no_duration_and_nothing_to_load():
    assert reply(wire.SKIPPED, 7, 0.5, failing_with(AssertionError())) == (7, None, None, None)


@pytest.mark.parametrize("kind", [wire.RESULT, wire.ERROR])
def test_a_reply_that_was_cut_short_is_none(kind):
    with pytest.raises(SegmentsCutError):
        reply(kind, 7, 0.5, failing_with(SegmentsCutError()))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bad", 17),
        RefusesAttributesError("refuses"),
        RemoteError("an app's own", type_name="x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_apps_exception_arrives_as_itself_because_of_the_remote_traceback(error):
    arrived = raised(error)
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    cause = arrived.__cause__
    assert type(cause) is RemoteTraceback
    assert cause.text == "the traceback"
    assert arrived.__suppress_context__


def test_an_exception_that_did_not_pickle_is_stood_in_for():
    arrived = raised(None)
    assert_stands_in(arrived, "the text")
    assert arrived.__cause__.text == "the traceback"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            TwoArgumentsError(1, "one"),
            "cannot be unpickled: TypeError: TwoArgumentsError.__init__() missing 1 required "
            "positional argument: 'reason'",
        ),
        (
            FrozenError(17),
            "cannot be unpickled: dataclasses.FrozenInstanceError: cannot assign to field 'code'",
        ),
        (DoesNotUnpickle(), "cannot be unpickled: ValueError: exploded while it was unpickled"),
        (ExitsWhenUnpickled(), "cannot be unpickled: SystemExit: 5"),
        (StopIteration(3), "cannot be raised by a coroutine"),
        (ReducesToTextError(), "unpickles to a str"),
        (KeyboardInterrupt(), "unpickles to a KeyboardInterrupt"),
        (EndsEverythingError(), "unpickles to a apps_bad.EndsEverythingError"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_does_not_arrive_as_an_exception_is_stood_in_for(error, reason):
    arrived = raised(error)
    assert_stands_in(arrived, f"the text (it {reason})")
    assert arrived.__cause__.text == "the traceback"


@pytest.mark.parametrize("kind", [wire.RESULT, wire.ERROR])
@pytest.mark.parametrize(
    ("error", "name"),
    [
        (ValueError("bad"), "ValueError"),
        (FrozenError(17), "apps_bad.FrozenError"),
        (SystemExit(5), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_body_that_does_not_unpickle_is_an_error_of_its_request(kind, error, name):
    number, seconds, arrived, value = reply(kind, 7, 0.5, failing_with(error))
    assert (number, seconds, value) == (7, 0.5, None)
    with pytest.raises(
        RemoteError, match=whole(f"the result cannot be unpickled: {name}: {error}")
    ):
        raise arrived
    assert arrived.type_name == name
    assert arrived.remote_traceback == "".join(traceback.format_exception(error))
    # One that would end the caller's program is not even shown as the cause.
    assert arrived.__cause__ is (error if isinstance(error, Exception) else None)


def test_a_chunk_is_its_value():
    assert chunk(pickle.loads, pickle.dumps([1])) == [1]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_chunk_that_cannot_be_unpickled_stands_for_its_error(kind):
    def load():
        raise kind("exploded")

    failure = chunk(load)
    assert type(failure) is ChunkFailure
    assert type(failure.error) is RemoteError
    assert str(failure.error) == f"a chunk cannot be unpickled: {kind.__name__}: exploded"


def test_a_chunk_that_is_cut_ends_the_worker():
    def load():
        raise SegmentsCutError

    with pytest.raises(SegmentsCutError):
        chunk(load)


def test_an_exception_may_be_pickled_behind_the_failure():
    values = iter([("the text", "the.kind", "the traceback", FOLLOWS), ValueError("bad", 17)])
    number, seconds, arrived, value = reply(wire.ERROR, 7, 0.5, lambda: next(values))
    assert (number, seconds, value) == (7, 0.5, None)
    assert type(arrived) is ValueError
    assert arrived.args == ("bad", 17)
    assert arrived.__cause__.text == "the traceback"


def test_one_that_is_cut_behind_the_failure_ends_the_worker():
    def load():
        if called:
            raise SegmentsCutError
        called.append(True)
        return "the text", "the.kind", "the traceback", FOLLOWS

    called = []
    with pytest.raises(SegmentsCutError):
        reply(wire.ERROR, 7, 0.5, load)
