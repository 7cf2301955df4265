"""What became of each request, and whether it may have. Decisions only.

A request takes one byte here: how often it began, by the workers' log, and how it ended, by
its client's. All that may be wrong with one request can be told from that byte.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ..harness.figures import Figure
from .journal import ENDING_BITS, Ending
from .work import BEGUN, BOOTED, EXITING, HOGGING, KIND_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAY_BEGIN: dict[Ending, tuple[int, ...]] = {
    Ending.SERVED: (1,),
    Ending.NO_MEMORY: (0, 1),
    Ending.CRASHED: (0, 1),
    Ending.CANCELLED: (0, 1),
    Ending.TIMED_OUT: (0, 1),
    Ending.REFUSED: (0,),
}
"""How often a request may have begun that ended so. Those that ended otherwise are lost."""

_ONE_BEGINNING = 1 << ENDING_BITS
_ENDING = _ONE_BEGINNING - 1
_MOST_BEGINNINGS = 256 - _ONE_BEGINNING


@dataclass(frozen=True, slots=True)
class Evidence:
    """The two logs, taken together.

    Attributes:
        states: a byte for each request, see `ending_of` and `beginnings_of`.
        cases: how many requests have each state.
        ended_again: endings of requests that had ended already.
        strays: beginnings of requests that had not been sent.
        booted: the processes of workers that came to life, and how many had each number.
        exits: of those, what was about to call ``os._exit``.
        hogs: of those, what was about to take all memory.
    """

    states: bytearray
    cases: Counter[int]
    ended_again: int
    strays: int
    booted: Counter[int]
    exits: Counter[int]
    hogs: Counter[int]


def ending_of(state: int) -> Ending:
    """Return how a request of this state ended."""
    return Ending(state & _ENDING)


def beginnings_of(state: int) -> int:
    """Return how often a request of this state began; 15 stands for more."""
    return state >> ENDING_BITS


def is_wrong(state: int) -> bool:
    """Whether no request may have this state."""
    return beginnings_of(state) not in MAY_BEGIN.get(ending_of(state), ())


def weigh(sent: int, endings: Iterable[Sequence[int]], begun: Iterable[Sequence[int]]) -> Evidence:
    """Take the logs of clients and workers together; both come in chunks of words."""
    states = bytearray(sent)
    ended_again = strays = 0
    for chunk in endings:
        for word in chunk:
            number = word >> ENDING_BITS
            if states[number]:
                ended_again += 1
            else:
                states[number] = word & _ENDING
    lives: dict[int, Counter[int]] = {BOOTED: Counter(), EXITING: Counter(), HOGGING: Counter()}
    for chunk in begun:
        for word in chunk[::2]:
            if word < sent:
                if states[word] < _MOST_BEGINNINGS:
                    states[word] += _ONE_BEGINNING
            elif word >> KIND_SHIFT == BEGUN:
                strays += 1
            else:
                lives[word >> KIND_SHIFT][word & (1 << KIND_SHIFT) - 1] += 1
    return Evidence(
        states,
        Counter(states),
        ended_again,
        strays,
        booted=lives[BOOTED],
        exits=lives[EXITING],
        hogs=lives[HOGGING],
    )


def offenders(evidence: Evidence, most: int) -> list[int]:
    """Return the first requests that have a state which none may have."""
    wrong = {state for state in evidence.cases if is_wrong(state)}
    if not wrong:
        return []
    return [*islice((n for n, state in enumerate(evidence.states) if state in wrong), most)]


def places(
    numbers: Iterable[int], begun: Iterable[Sequence[int]]
) -> Iterator[tuple[int, int, int]]:
    """Yield, in the order of the log, request, slot and worker of some requests' beginnings."""
    wanted = frozenset(numbers)
    for chunk in begun:
        for word, where in zip(chunk[::2], chunk[1::2], strict=True):
            if word in wanted:
                yield word, where >> 32, where & (1 << 32) - 1


def judge(
    evidence: Evidence, crashes: Counter[int], faults: Counter[int], threads: int = 1
) -> list[Figure]:
    """Return what became of the requests, and how many of them it may not have.

    Args:
        evidence: the two logs.
        crashes: how many crash errors named each process.
        faults: how many times each process number was given a fault that can end a worker,
            besides those that the workers wrote down.
        threads: how many requests each worker executed at a time.
    """
    by_ending: Counter[Ending] = Counter()
    twice = unbegun = revived = 0
    for state, number in evidence.cases.items():
        ending, beginnings = ending_of(state), beginnings_of(state)
        by_ending[ending] += number
        if beginnings > 1:
            twice += number
        if ending is Ending.SERVED and beginnings == 0:
            unbegun += number
        if ending is Ending.REFUSED and beginnings:
            revived += number
    explained = faults + evidence.exits + evidence.hogs
    return [
        _count("requests sent", len(evidence.states)),
        _count("served", by_ending[Ending.SERVED]),
        _count("failed by crash", by_ending[Ending.CRASHED]),
        _count("failed for want of memory", by_ending[Ending.NO_MEMORY]),
        _count("cancelled by their clients", by_ending[Ending.CANCELLED]),
        _count("timed out", by_ending[Ending.TIMED_OUT]),
        _none("refused, every slot having failed", by_ending[Ending.REFUSED]),
        _none("lost: without an outcome", by_ending[Ending.NONE]),
        _none("lost: with a result not their own", by_ending[Ending.FOREIGN]),
        _none("lost: by an error that no fault explains", by_ending[Ending.UNEXPLAINED]),
        _none("ended twice", evidence.ended_again),
        _none("begun twice", twice),
        _none("served and never begun", unbegun),
        _none("begun and never sent, or refused", evidence.strays + revived),
        _none(
            "crash errors beyond one for each lane and death",
            _beyond(crashes, evidence.booted, threads),
        ),
        _none("crash errors of workers that no fault met", _beyond(crashes, explained, threads)),
    ]


def _beyond(crashes: Counter[int], deaths: Counter[int], threads: int) -> int:
    # A Counter's difference has no negative counts.
    return (crashes - Counter({pid: threads * n for pid, n in deaths.items()})).total()


def _count(what: str, number: int) -> Figure:
    return Figure(what, number, "")


def _none(what: str, number: int) -> Figure:
    return Figure(what, number, "", at_most=0)
