"""The exclusion reward against a re-statement of the published one, side by side in one run: ``python -m benchmarks.reward``.

Both score the same answers of 2,000 characters (the published one together with the prompt, as its reward manager gave it),
in turns; the shortest of many rounds counts, as a busy machine only adds. Then hostile answers that grow to 1 MB, and
random ones (:mod:`benchmarks.reward_fuzz`): no exception, no wrong candidate, nothing paid above the perfect answer.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.reward_fuzz import fuzz
from iranker_verl.audit.policies import GROWING, PROSE
from reward_fns import direct, exclusion
from tests.reward_fns.published_faults import ASKED, TURN, published_reward

TEXTS = [f"The Film of Number {i * 37 % 101} ({1950 + i})" for i in range(20)]
TRUTH = {"candidates": TEXTS, "target": 3}
PROMPT = (
    f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nI have watched {'; '.join(TEXTS)}.\n"
    f"These are candidates:\n{chr(10).join(TEXTS)}\nWhich is the worst?{ASKED}<|im_end|>\n{TURN}<think>"
)


def answers(length: int) -> dict[str, str]:
    """Return answers of ``length`` characters, as models write them."""
    reasoning = (PROSE * (length // len(PROSE) + 1))[: length - 70]
    return {
        "text in tags": f"\n{reasoning}\n</think>\n<answer>\n{TEXTS[7]}\n</answer>",
        "label in tags": f"\n{reasoning}\n</think>\n<answer>\n[H]\n</answer>",
        "never ends": f"\n{reasoning}",
        "prose in tags": f"<answer>{reasoning}</answer>",
    }


def shortest(functions: list[Callable[[], object]], rounds: int, calls: int) -> list[float]:
    """Return the seconds a call of each function, measured in turns."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for i, function in enumerate(functions):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            best[i] = min(best[i], (time.perf_counter() - start) / calls)
    return best


def speed(rounds: int) -> None:
    """Print the times of one call, published and ours."""
    print(f"answers of 2,000 characters, {len(TEXTS)} candidates, prompt of {len(PROMPT):,} characters")
    for name, answer in answers(2000).items():
        published, ours = shortest(
            [
                lambda answer=answer: published_reward(PROMPT + answer, TRUTH),
                lambda answer=answer: exclusion.compute_score("rec-movie", answer, TRUTH),
            ],
            rounds,
            100,
        )
        print(
            f"  {name:14} published {published * 1e6:7.1f} us   ours {ours * 1e6:5.1f} us   ratio {published / ours:5.1f}"
        )


def speed_on_new_pools(count: int = 6_000) -> None:
    """Print the times for pools that occur once, so that caches do not help."""
    truths = [{"candidates": [f"{text} {n}" for text in TEXTS], "target": n % len(TEXTS)} for n in range(count)]
    responses = [answers(2000)["text in tags"].replace(TEXTS[7], truth["candidates"][7]) for truth in truths]
    pairs = list(zip(responses, truths, strict=True))
    published, ours = shortest(
        [
            lambda: [published_reward(PROMPT + answer, truth) for answer, truth in pairs],
            lambda: [exclusion.compute_score("rec-movie", answer, truth) for answer, truth in pairs],
        ],
        3,
        1,
    )
    published, ours = published / count, ours / count
    print(
        f"  {'never seen':14} published {published * 1e6:7.1f} us   ours {ours * 1e6:5.1f} us   ratio {published / ours:5.1f}"
    )


def growth(length: int) -> float:
    """Return the longest time (s) that any hostile answer of ``length`` characters takes."""
    worst = 0.0
    for unit, before, after in GROWING:
        answer = before + unit * (length // len(unit)) + after
        for score in (exclusion.compute_score, direct.compute_score):
            worst = max(worst, *shortest([lambda score=score, answer=answer: score("rec-movie", answer, TRUTH)], 3, 1))
    return worst


def main() -> None:
    """Run what the command line says; exit 1 where a random answer is scored wrongly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cases", type=int, default=1_000_000, help="random answers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--published-kb", type=int, default=24, help="hostile answer for the published reward (96: ~20 s)"
    )
    arguments = parser.parse_args()
    speed(arguments.rounds)
    speed_on_new_pools()
    print("the worst of all hostile answers, exclusion and direct")
    for length in (10_000, 100_000, 1_000_000):
        print(f"  {length:>9,} characters  ours {growth(length) * 1000:6.2f} ms")
    for kilobytes in (arguments.published_kb // 4, arguments.published_kb):
        hostile = "<answer>" * (kilobytes * 128)
        (seconds,) = shortest([lambda hostile=hostile: published_reward(PROMPT + hostile, TRUTH)], 1, 1)
        print(f"  {kilobytes * 1024:>9,} characters  published {seconds * 1000:6.0f} ms")
    start = time.perf_counter()
    wrong = fuzz(arguments.cases, arguments.seed)
    print(f"{arguments.cases:,} random answers in {time.perf_counter() - start:.0f} s: {len(wrong)} wrong")
    print(*wrong[:20], sep="\n", end="\n" if wrong else "")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
