"""The public code's exclusion reward: values by hand, and the same number as a re-statement of the code, over fuzzed answers."""

import random

import pytest

from reward_fns.public_code import compute_score, compute_score_batch
from tests.reward_fns.published_faults import published_reward

PROMPT = (
    "<|im_start|>user\nWhich one?\nShow your work in <think> </think> tags. And return the final answer in <answer> </answer> "
    "tags.<|im_end|>\n<|im_start|>assistant\n<think>"
)
TRUTH = {"candidates": ["Heat (1995)", "Alien (1979)", "Up (2009)", " Big"], "target": 1}
TIDY = "Hm.\n</think>\n<answer>\n{}</answer>"
PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", "\n", " ", "\t", "Heat (1995)", "Alien (1979)", "Up (2009)", " Big"),
    *("heat (1995)", "[A]", "Up", "I think so.", "<answer>\n", "\n</answer>", "\n</think>\n", "<think>\n", "\x1c", "é", "\u2003"),
)  # fmt: skip


def score(response, truth=TRUTH, prompt=PROMPT, **settings):
    return compute_score("rec-movie", response, truth, {"prompt": prompt}, **settings)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        (TIDY.format("Up (2009)"), 0.0),  # 1 - 1
        (TIDY.format("Alien (1979)"), -1.0),  # the positive
        (TIDY.format("Up"), -1.5),  # no candidate
        ("Hm.\n</think>\n<answer>\nUp (2009)\n</answer>", -0.25),  # the prompt holds " </answer>" already
        ("Hm.</think>\n<answer>\nUp (2009)</answer>", -0.25),
        ("Hm.</think><answer>Up (2009)</answer>", -0.5),
        ("\nHm.</think><answer>Up (2009)\n</answer>", -1.0),  # no tag is in order
        ("Hm.", -2.0),  # the prompt's own empty answer is read: -0.5, and two tags are missing
    ],
)
def test_the_score_is_that_of_the_code_by_hand(response, value):
    assert score(response)["score"] == value


def test_each_difference_of_the_code_has_a_switch():
    answer = "Hm.</think><answer>Up (2009)</answer>"
    assert score(answer, format_constant=0)["score"] == 0.5
    assert score(answer, tag_weight=0)["score"] == 0.0
    assert score(answer, format_constant=0, tag_weight=0, read_prompt=False)["score"] == 1.0
    # read alone, no answer is none: -1, where the prompt's own was no candidate: -.5
    assert [score("Hm.", tag_weight=0, read_prompt=flag)["score"] for flag in (True, False)] == [-1.5, -2.0]


def test_ten_thousand_fuzzed_answers_earn_what_the_re_statement_says():
    draw = random.Random(3)
    earned = set()
    for _ in range(10_000):
        size = draw.randrange(2, 5)
        truth = {"candidates": draw.sample(TRUTH["candidates"], size), "target": draw.randrange(size)}
        prompt = draw.choice((PROMPT, "Which?", PROMPT + "\n"))
        answer = draw.choice(truth["candidates"]) + draw.choice(("", "\n", " "))
        response = "".join(draw.choice((*PIECES, answer)) for _ in range(draw.randrange(12)))
        if draw.random() < 0.5:
            response = draw.choice(PIECES) + TIDY.format(answer) + draw.choice(PIECES)
        found = score(response, truth, prompt)["score"]
        assert found == published_reward(prompt + response, truth), (prompt, response, truth)
        earned.add(found)
    assert len(earned) >= 12  # so the fuzz reaches every value of the reward and of the tags


def test_a_missing_prompt_and_an_unknown_setting_are_said():
    with pytest.raises(ValueError, match=r'extra_info\["prompt"\]'):
        compute_score("rec-movie", "x", TRUTH)
    with pytest.raises(ValueError, match="'kind'; known are format_constant"):
        score("x", kind="graded")


def test_batches_are_rows_one_by_one():
    answers = [TIDY.format(text) for text in TRUTH["candidates"]]
    batch = compute_score_batch(["rec-movie"] * 4, answers, [TRUTH] * 4, [{"prompt": PROMPT}] * 4)
    assert batch == [score(answer) for answer in answers]
    assert [row["score"] for row in batch] == [0.0, -1.0, 0.0, -1.5]  # " Big" is read without its blank
