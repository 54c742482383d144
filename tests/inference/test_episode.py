"""The loop that keeps an engine busy, with an engine that is none."""

import asyncio
import re

import pytest

from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import EpisodeOptions, call_seed, replay_episode, run_episodes
from iranker_verl.ranking import Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import load

TEMPLATE = load("label")


def task(id, n=4, positive=0):
    candidates = tuple(Candidate(f"{id}-{i}", f"text {i}") for i in range(n))
    return RankingTask.with_positive(id, "recommendation", "rec-movie", f"context {id}", candidates, f"{id}-{positive}")


class FakeEngine:
    """Every character is a token; answers through ``answer(prompt)``, after ``delay(prompt)`` seconds."""

    def __init__(self, answer=lambda prompt: "[B]", delay=lambda prompt: 0.0):
        self.answer, self.delay = answer, delay
        self.running = self.most = 0
        self.log, self.seeds = [], []

    async def ask(self, messages, max_new_tokens, temperature=0.0, *, seed=None):
        prompt = messages[-1]["content"]
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay(prompt))
        finally:
            self.running -= 1
        self.log.append((re.search(r"context (\w+)", prompt).group(1), temperature, max_new_tokens))
        self.seeds.append(seed)
        text = self.answer(prompt)
        return Generation(text, tuple(range(len(text))), len(prompt))


def run(tasks, engine, options=EpisodeOptions(8), **more):  # noqa: B008
    return asyncio.run(run_episodes(tasks, TEMPLATE, engine, options, **more))


def test_rankings_counts_and_tokens():
    engine = FakeEngine()
    one, two = run([task("x"), task("y", n=2)], engine)
    assert one.ranking == ("x-0", "x-3", "x-2", "x-1")
    assert [s.excluded for s in one.steps] == ["x-1", "x-2", "x-3"]
    assert (one.calls, one.malformed, one.new_tokens) == (3, 0, 9)
    assert (two.task_id, two.dataset, two.calls) == ("y", "rec-movie", 1)
    assert two.prompt_tokens == len(TEMPLATE.messages(Elimination(task("y", n=2)))[-1]["content"])
    assert {entry[1:] for entry in engine.log} == {(0.0, 8)}


def test_a_slow_task_delays_no_other():
    engine = FakeEngine(delay=lambda prompt: 0.4 if "context slow" in prompt else 0.001)
    episodes = run([task("slow"), *[task(f"fast{i}") for i in range(20)]], engine)
    assert episodes[0].task_id == "slow" and len(episodes) == 21
    # In lock step, no second step of a fast task could come before the first one of the slow task.
    assert [entry[0] for entry in engine.log].index("slow") == 60


def test_at_most_so_many_at_once():
    engine = FakeEngine(delay=lambda prompt: 0.002)
    run([task(f"t{i}") for i in range(12)], engine, concurrency=5)
    assert engine.most == 5


def test_malformed_answers_are_counted_and_stall_nothing():
    [episode] = run([task("x")], FakeEngine(answer=lambda prompt: "I would rather not"))
    assert (episode.calls, episode.malformed) == (3, 3)
    assert episode.ranking == ("x-0", "x-1", "x-2", "x-3")  # the last one shown leaves


def test_progress_comes_while_nothing_ends():
    seen, done = [], []
    engine = FakeEngine(delay=lambda prompt: 0.1)
    run(
        [task("x")],
        engine,
        on_progress=seen.append,
        progress_every_s=0.03,
        on_done=lambda place, e: done.append((place, e)),
    )
    assert any(p.done == 0 for p in seen)
    assert (seen[-1].done, seen[-1].total, seen[-1].calls) == (1, 1, 3)
    assert [(place, e.task_id) for place, e in done] == [(0, "x")]


def test_an_error_ends_all_of_it():
    def answer(prompt):
        if "context bad" in prompt:
            raise RuntimeError("the engine died")
        return "[A]"

    engine = FakeEngine(answer=answer, delay=lambda prompt: 0.0 if "bad" in prompt else 5.0)
    with pytest.raises(RuntimeError, match="died"):
        run([task("good"), task("bad")], engine)
    assert engine.running == 0


def test_a_cancellation_ends_all_of_it():
    engine = FakeEngine(delay=lambda prompt: 60)

    async def main():
        job = asyncio.create_task(run_episodes([task("x"), task("y")], TEMPLATE, engine, EpisodeOptions(8)))
        await asyncio.sleep(0.05)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1
    assert engine.running == 0


def test_no_tasks():
    assert run([], FakeEngine()) == []


def test_concurrency_below_one():
    with pytest.raises(ValueError, match="at least 1"):
        run([task("x")], FakeEngine(), concurrency=0)


def test_a_greedy_call_has_no_seed_and_a_sampled_one_its_own():
    tasks = [task("x"), task("y")]
    greedy, first, second, other = FakeEngine(), FakeEngine(), FakeEngine(), FakeEngine()
    run(tasks, greedy)
    assert greedy.seeds == [None] * 6
    sampled = EpisodeOptions(8, temperature=1.0, seed=3)
    run(tasks, first, sampled)
    run(list(reversed(tasks)), second, sampled, concurrency=1)
    run(tasks, other, EpisodeOptions(8, temperature=1.0, seed=4))
    assert len(set(first.seeds)) == 6 and all(0 <= seed < 2**31 for seed in first.seeds)
    assert sorted(first.seeds) == sorted(second.seeds)  # whatever is asked beside it
    assert not set(first.seeds) & set(other.seeds)
    assert call_seed(3, task("x"), 0) in first.seeds


@pytest.mark.parametrize("template", ["label", "direct-label", "setwise-label", "pairwise-label"])
def test_an_episode_is_played_again_from_its_answers(template):
    answers = iter(["[A]", "nonsense", "[B]", "[C] > [A]"] * 50)
    template = load(template)
    [episode] = asyncio.run(
        run_episodes([task("x", n=5)], template, FakeEngine(answer=lambda p: next(answers)), EpisodeOptions(8))
    )
    responses = [step.response for step in episode.steps]
    counts = {"prompt_tokens": episode.prompt_tokens, "new_tokens": episode.new_tokens, "seconds": episode.seconds}
    assert replay_episode(task("x", n=5), template, responses, **counts) == episode
    with pytest.raises(ValueError, match=r"do not end|is over|is ranked"):
        replay_episode(task("x", n=5), template, responses[:-1], **counts)
    with pytest.raises(ValueError, match=r"is over|is ranked"):
        replay_episode(task("x", n=5), template, [*responses, "[A]"], **counts)
