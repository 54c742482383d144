"""Sorting by a language model that compares: setwise and pairwise ranking, as pure state machines.

    state = Setwise(task)
    while not state.done:
        state.step(model(template.messages(state)))
    state.ranking()      # ids, best first

They have the interface of :class:`~iranker_verl.ranking.elimination.Elimination`, but the pool of a step is a few candidates and
its answer names the *best* of them. The size of ``pool`` changes; it is empty once ``done``.

:class:`Setwise`   heapsort over sets (Zhuang et al. 2024, arXiv 2310.09497): a node of the heap and its ``children`` (3, so at
                   most 4 candidates a prompt, as in the paper's experiments)
:class:`Pairwise`  heapsort over pairs (PRP-Sorting: Qin et al. 2024, arXiv 2306.17563)
:class:`AllPairs`  every pair, ranked by wins (PRP-Allpair, the same paper)

*Position bias.* Each pair takes two calls, one for each order; where the answers disagree it is a tie, as in the paper. A set takes
one call, in the task's order: that order is random and independent of the heap's nodes, so a preference for a position favours none.

*Malformed answers and ties.* A malformed answer to a pair makes it a tie. Of a tie, and of a set whose answer is malformed, the
candidate that comes first in the task goes first (candidate orders are random, so this favours none); all-pairs gives half a win to
both. Malformed answers are counted, and leave the task's order, as elsewhere.

A comparison that comes up again takes no further call. There is no ``ground_truth``: no reward function reads such a step.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import ClassVar

from iranker_verl.ranking.task import Candidate, RankingTask
from reward_fns.answers import parse_exclusion

CHILDREN = 3

# Yields the indices, in the task, of the candidates of a prompt; takes the index among them that is named, or None.
Comparison = Generator[tuple[int, ...], int | None, int]
Run = Generator[tuple[int, ...], int | None, None]


@dataclass(frozen=True)
class SortStep:
    """One comparison.

    ``pool`` holds the ids of the prompt, ``chosen`` the one named as the best or None; ``status`` is :mod:`reward_fns.answers`'s ("ok" or
    why not).
    """

    pool: tuple[str, ...]
    chosen: str | None
    status: str
    response: str

    @property
    def malformed(self) -> bool:
        """Whether the answer named no candidate."""
        return self.status != "ok"


class Sorting:
    """The base of the three. ``step`` raises ValueError once ``done``. A prompt has at most ``most_candidates``."""

    most_candidates: ClassVar[int]

    def __init__(self, task: RankingTask) -> None:
        self.task = task
        self.steps: list[SortStep] = []
        self._ranked: list[int] = []
        self._run = self._sort()
        self._indices: tuple[int, ...] = next(self._run)

    def _sort(self) -> Run:
        """Fill ``_ranked`` with indices in the task, best first."""
        raise NotImplementedError

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """The candidates of the present step, in the prompt's order."""
        return tuple(self.task.candidates[i] for i in self._indices)

    @property
    def done(self) -> bool:
        """Whether every candidate has its rank."""
        return not self._indices

    def step(self, response: str) -> SortStep:
        """Go on with ``response``'s verdict on the pool."""
        if self.done:
            raise ValueError(f"task {self.task.id!r} is ranked: there is nothing left to compare")
        pool = self.pool
        answer = parse_exclusion(response, [c.text for c in pool])  # one candidate's name, here the best one's
        chosen = pool[answer.index].id if answer.index is not None else None
        step = SortStep(tuple(c.id for c in pool), chosen, answer.status, response)
        self.steps.append(step)
        try:
            self._indices = self._run.send(answer.index)
        except StopIteration:
            self._indices = ()
        return step

    def ranking(self) -> list[str]:
        """Return all ids, best first. Until ``done``, what is not ranked yet comes last, in the task's order."""
        known = set(self._ranked)
        order = [*self._ranked, *(i for i in range(len(self.task.candidates)) if i not in known)]
        return [self.task.candidates[i].id for i in order]


class Setwise(Sorting):
    """At most :func:`most_sets` ``(N, 3)`` calls: for 20 candidates 49, for 100 387."""

    most_candidates = CHILDREN + 1

    def _sort(self) -> Run:
        known: dict[tuple[int, ...], int] = {}

        def best(family: list[int]) -> Comparison:
            pool = tuple(sorted(family))
            if pool not in known:
                named = yield pool
                known[pool] = pool[0 if named is None else named]
            return known[pool]

        return _heapsort(len(self.task.candidates), CHILDREN, best, self._ranked)


class Pairwise(Sorting):
    """Heapsort by pairs.

    At most 4 :func:`most_sets` ``(N, 2)`` calls (a node and two children: two pairs, two calls each), and never more than the
    ``N (N - 1)`` of all pairs: for 20 candidates 272, for 100 2,284.
    """

    most_candidates = 2

    def _sort(self) -> Run:
        known: dict[tuple[int, int], int | None] = {}

        def best(family: list[int]) -> Comparison:
            node, *below = family
            leader = below[0]
            for other in (*below[1:], node):  # the node meets the better child only
                low, high = sorted((leader, other))
                if (low, high) not in known:
                    known[low, high] = yield from _duel(low, high)
                winner = known[low, high]
                leader = low if winner is None else winner
            return leader

        return _heapsort(len(self.task.candidates), 2, best, self._ranked)


class AllPairs(Sorting):
    """``N (N - 1)`` calls; a tie is half a win for both, and equal wins stay in the task's order."""

    most_candidates = 2

    def _sort(self) -> Run:
        count = len(self.task.candidates)
        halves = [0] * count  # wins, doubled
        for low in range(count):
            for high in range(low + 1, count):
                winner = yield from _duel(low, high)
                for index in (low, high) if winner is None else (winner, winner):
                    halves[index] += 1
        self._ranked.extend(sorted(range(count), key=lambda i: -halves[i]))


def _duel(low: int, high: int) -> Generator[tuple[int, ...], int | None, int | None]:
    """Compare a pair in both orders; return the winner, or None for a tie."""
    first = yield low, high
    second = yield high, low
    if first is None or second is None or first == second:  # one position in both orders is two candidates
        return None
    return (low, high)[first]


def _heapsort(count: int, children: int, best: Callable[[list[int]], Comparison], ranked: list[int]) -> Run:
    """Append the indices 0 to ``count - 1`` to ``ranked``, best first; ``best`` finds the best of a node and its children."""
    heap = list(range(count))

    def sink(node: int) -> Run:
        while (first := children * node + 1) < len(heap):
            family = [node, *range(first, min(first + children, len(heap)))]
            chosen = yield from best([heap[i] for i in family])
            winner = next(i for i in family if heap[i] == chosen)
            if winner == node:
                return
            heap[node], heap[winner] = heap[winner], heap[node]
            node = winner

    for node in reversed(range(count)):
        yield from sink(node)
    while heap:
        ranked.append(heap[0])
        last = heap.pop()
        if heap:
            heap[0] = last
            yield from sink(0)


def most_sets(count: int, children: int) -> int:
    """Return the most questions "which of this node and its children is the best?" that a heapsort asks.

    To build the heap of ``count`` candidates, for every node the levels below it; then, for every heap of 2 to ``count - 1``,
    its levels.
    """

    def levels(node: int, size: int) -> int:
        below = 0
        while (node := children * node + 1) < size:
            below += 1
        return below

    return sum(levels(node, count) for node in range(count)) + sum(levels(0, size) for size in range(2, count))
