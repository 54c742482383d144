"""The exclusion reward: hand-computed values, its bounds, and the faults of the published code."""

import ast
import importlib
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reward_fns
from reward_fns.answers import label
from reward_fns.exclusion import KINDS, compute_score, compute_score_batch, graded_values, relevance_of

FOLDER = Path(reward_fns.__file__).parent
ONE = {"candidates": ["a1", "b1", "c1", "d1"], "target": 2}
GRADED = {"candidates": ["a1", "b1", "c1"], "target": 1, "relevance": [1.0, 3.0, 0.0]}
ANY_RELEVANCE = ("published", "corrected", "graded", "cost_aware")  # the other kinds take none below 0
grades = st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=25)


def score(answer, truth=ONE, **kwargs):
    return compute_score("rec-movie", answer, truth, {}, **kwargs)


def truth_of(relevance):
    return {
        "candidates": [f"text {i}" for i in range(len(relevance))],
        "target": relevance.index(max(relevance)),
        "relevance": relevance,
    }


# ---------------------------------------------------------------- golden values


def test_excluding_another_candidate():
    assert score("[A]") == {
        "score": 1.0,
        "expected": 0.75,
        "regret": 0.0,
        "format": 1.0,
        "overlong": 0.0,
        "malformed": 0.0,
        "no_answer": 0.0,
        "not_a_candidate": 0.0,
        "several_answers": 0.0,
        "lost_positive": 0.0,
        "pool_size": 4.0,
    }


def test_excluding_the_positive():
    parts = score("<think>hm</think><answer>c1</answer>")
    assert (parts["score"], parts["expected"], parts["lost_positive"], parts["malformed"]) == (0.0, 0.75, 1.0, 0.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("[E]", "not_a_candidate"),
        ("", "no_answer"),
        ("<think>", "no_answer"),
        ("<answer>[A]</answer><answer>[B]</answer>", "several_answers"),
    ],
)
def test_malformed_answers_say_why(answer, why):
    parts = score(answer)
    assert parts["score"] == -0.5
    assert parts["malformed"] == 1.0
    assert parts["lost_positive"] == 0.0
    reasons = {k: parts[k] for k in ("no_answer", "not_a_candidate", "several_answers")}
    assert reasons == {**dict.fromkeys(reasons, 0.0), why: 1.0}


def test_corrected_subtracts_what_randomness_earns():
    assert [score(a, kind="corrected")["score"] for a in ("[A]", "[C]", "?")] == [0.25, -0.75, -1.25]
    assert score("?", kind="corrected", malformed=-2.0)["score"] == -2.75
    # what is left to subtract: else an estimator that corrects, as ours does, would correct twice
    assert score("[A]", kind="corrected")["expected"] == 0.0


def test_graded_relevance_pays_one_minus_regret():
    # grades 1, 3, 0: regrets 1/3, 1, 0
    values = [score(f"[{x}]", GRADED, kind="graded")["score"] for x in "ABC"]
    assert values == pytest.approx([2 / 3, 0.0, 1.0])
    assert score("[A]", GRADED, kind="graded")["expected"] == pytest.approx(5 / 9)
    assert score("[A]", GRADED, kind="graded")["regret"] == pytest.approx(1 / 3)
    assert [score(f"[{x}]", GRADED)["lost_positive"] for x in "ABC"] == [0.0, 1.0, 0.0]


def test_the_published_reward_knows_the_best_grade_only():
    assert [score(f"[{x}]", GRADED)["score"] for x in "ABC"] == [1.0, 0.0, 1.0]
    assert [score(f"[{x}]", GRADED, kind="corrected")["score"] for x in "ABC"] == pytest.approx([1 / 3, -2 / 3, 1 / 3])
    both = {"candidates": ["a1", "b1", "c1"], "target": 0, "relevance": [1.0, 0.0, 1.0]}
    assert [score(f"[{x}]", both)["score"] for x in "ABC"] == [0.0, 1.0, 0.0]


# utilities .9, .8, .3, .1: the example of the module's docstring
ROUTES = {"candidates": ["a1", "b1", "c1", "d1"], "target": 0, "relevance": [0.9, 0.8, 0.3, 0.1]}


def test_cost_aware_pays_by_the_score_that_is_lost():
    assert [score(f"[{x}]", ROUTES, kind="cost_aware")["score"] for x in "ABCD"] == pytest.approx([0.9, 1, 1, 1])
    assert score("[A]", ROUTES, kind="cost_aware")["expected"] == pytest.approx(0.975)
    assert [score(f"[{x}]", ROUTES, kind="graded")["score"] for x in "AB"] == pytest.approx([0.0, 0.125])
    assert score("[A]", ROUTES, kind="cost_aware", scale=0.2)["score"] == pytest.approx(0.5)
    assert score("[A]", ROUTES, kind="cost_aware", scale=0.05)["score"] == 0.0  # more than everything
    assert score("[A]", ROUTES, kind="cost_aware")["lost_positive"] == 1.0
    # one positive is the published reward
    assert [score(f"[{x}]", kind="cost_aware")["score"] for x in "ABCD"] == [1.0, 1.0, 0.0, 1.0]
    tied = {**ROUTES, "relevance": [0.9, 0.9, 0.3, 0.1]}
    assert [score(f"[{x}]", tied, kind="cost_aware")["score"] for x in "ABCD"] == [1.0] * 4


def test_cost_aware_scores_from_effect_and_cost():
    truth = {"candidates": ["a1", "b1"], "target": 1, "effect": [1.0, 0.5], "cost": [0.5, 0.1]}
    weights = {"kind": "cost_aware", "effect_weight": 0.2, "cost_weight": 0.8}
    # .2 - .4 = -.2 and .1 - .08 = .02
    assert [score(f"[{x}]", truth, **weights)["score"] for x in "AB"] == pytest.approx([1.0, 0.78])
    assert score("[A]", truth, kind="cost_aware")["score"] == 1.0  # without weights: the target
    del truth["target"]  # nobody needs it then
    assert score("[B]", truth, **weights)["score"] == pytest.approx(0.78)
    equal = {"kind": "cost_aware", "effect_weight": 0.5, "cost_weight": 0.5}
    assert [score(f"[{x}]", truth, **equal)["score"] for x in "AB"] == pytest.approx([0.95, 1.0])  # .25 and .2


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=12), st.randoms())
def test_what_an_episode_loses_is_the_regret_of_whom_it_leaves(values, draw):
    left, lost = list(values), 0.0
    while len(left) > 1:
        place = draw.randrange(len(left))
        truth = {"candidates": [f"m{i}" for i in range(len(left))], "target": 0, "relevance": left}
        lost += score(f"[{label(place)}]", truth, kind="cost_aware", scale=2.0)["regret"] * 2.0
        del left[place]
    assert lost == pytest.approx(max(values) - left[0], abs=1e-9)


# ---------------------------------------------------------------- form and length


def test_an_untidy_answer_costs_a_little():
    assert score("I say <answer>[A]</answer>.")["score"] == 0.95
    assert score("I say <answer>[A]</answer>.")["format"] == 0.0
    assert score("I say <answer>[A]</answer>.", format_weight=0.0)["score"] == 1.0
    assert score("I say <answer>[C]</answer>.", format_weight=0.25)["score"] == -0.25
    assert score("I say <answer>[A]</answer>.", kind="corrected")["score"] == pytest.approx(0.2)
    assert score("I say <answer>?</answer>.")["score"] == -0.5  # malformed is malformed, tidy or not
    assert score("<answer>?</answer>")["format"] == 0.0


def test_a_long_answer_costs_what_is_asked():
    answer = "<think>" + "x" * 986 + "</think>[A]"
    assert len(answer) == 1004
    long = {"length_weight": 0.2, "free_chars": 504, "max_chars": 1504}
    assert score(answer, **long)["overlong"] == 0.5
    assert score(answer, **long)["score"] == pytest.approx(0.9)
    assert score(answer)["overlong"] == 0.0
    assert score(answer, free_chars=10, max_chars=20)["score"] == 1.0  # the weight is 0 by default


def test_pools_in_which_nothing_can_be_regretted():
    truth = {"candidates": ["a1", "b1"], "target": 0, "relevance": [0.0, 0.0]}
    assert (score("[A]", truth)["score"], score("[A]", truth)["expected"]) == (1.0, 1.0)
    assert score("?", truth)["score"] == -0.5
    alone = {"candidates": ["a1"], "target": 0}
    assert (score("[A]", alone)["score"], score("[A]", alone)["lost_positive"]) == (1.0, 0.0)
    for kind in KINDS:
        rest = 1.0 if kind in ("published", "graded", "cost_aware") else 0.0
        assert (score("[A]", truth, kind=kind)["score"], score("[A]", truth, kind=kind)["lost_positive"]) == (rest, 0.0)


def test_columns_read_from_parquet_are_arrays():
    truth = {"candidates": np.array(["a1", "b1"], dtype=object), "target": np.int64(1), "relevance": np.array([])}
    assert [score(a, truth)["score"] for a in ("[A]", "[B]")] == [1.0, 0.0]
    truth |= {"candidates": np.array(["a1", "b1"]), "target": np.array(1)}  # neither can be hashed
    assert [score(a, truth)["score"] for a in ("[A]", "[B]")] == [1.0, 0.0]
    truth["relevance"] = np.array([5.0, 1.0])
    assert [score(a, truth)["score"] for a in ("[A]", "[B]")] == [0.0, 1.0]
    assert [score(a, truth, kind="graded")["score"] for a in ("[A]", "[B]")] == [0.0, 1.0]
    truth["relevance"] = None
    assert [score(a, truth)["score"] for a in ("[A]", "[B]")] == [1.0, 0.0]


def test_every_part_is_a_float_for_verl_to_average():
    for answer in ("[A]", "[C]", "?"):
        assert all(type(v) is float for v in score(answer).values())


def test_batch_form():
    sources, answers, truths = ["x", "y", "z"], ["[A]", "[C]", "?"], [ONE, ONE, GRADED]
    expected = [compute_score(*x) for x in zip(sources, answers, truths, strict=True)]
    assert compute_score_batch(sources, answers, truths) == expected
    assert compute_score_batch(sources, answers, truths, [None, {}, {"index": 1}]) == expected
    corrected = compute_score_batch(sources, answers, truths, kind="corrected", malformed=-1.0)
    assert [c["score"] for c in corrected] == pytest.approx([0.25, -0.75, -1 - 2 / 3])
    assert compute_score_batch([], [], []) == []
    with pytest.raises(ValueError):
        compute_score_batch(sources, answers[:2], truths)


def test_what_verl_passes_besides_is_ignored():
    assert score("[A]", reward_router_address=None, reward_model_tokenizer=None) == score("[A]")


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(ValueError, match="'formt_weight'; known are kind, malformed, format_weight"):
        score("[A]", formt_weight=0.1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"format_weight": -0.1}, "0 or more"),
        ({"length_weight": float("nan")}, "0 or more"),
        ({"format_weight": 0.5}, "stay below 0.5"),
        ({"format_weight": 0.3, "length_weight": 0.3}, "add up to 0.6"),
        ({"free_chars": 10, "max_chars": 10}, "free_chars"),
        ({"effect_weight": 0.5, "cost_weight": 0.5}, "kind=published"),
        ({"scale": 1.0}, "kind=published"),
        ({"kind": "graded", "scale": "x"}, "kind=graded"),
        ({"kind": "cost_aware", "effect_weight": 0.5}, "together"),
        ({"kind": "cost_aware", "effect_weight": 0.5, "cost_weight": 0.5}, "ground_truth effect"),
        ({"kind": "cost_aware", "effect_weight": float("nan"), "cost_weight": 0.5}, "cost_weight are numbers"),
        ({"kind": "cost_aware", "effect_weight": -1, "cost_weight": 1}, "0 or more"),
        ({"kind": "cost_aware", "effect_weight": 0, "cost_weight": 0}, "not both 0"),
        ({"kind": "cost_aware", "effect_weight": "1", "cost_weight": 0}, "are numbers"),
        ({"kind": "cost_aware", "scale": "1"}, "scale"),
        ({"kind": "cost_aware", "scale": 0.0}, "scale"),
        ({"kind": "cost_aware", "scale": float("nan")}, "scale"),
    ],
)
def test_settings_that_cannot_be_meant(settings, words):
    with pytest.raises(ValueError, match=words):
        score("[A]", **settings)


# ---------------------------------------------------------------- properties


@given(grades, st.sampled_from(ANY_RELEVANCE))
def test_expected_is_the_mean_over_all_valid_exclusions(relevance, kind):
    truth = truth_of(relevance)
    parts = [score(f"[{label(i)}]", truth, kind=kind) for i in range(len(relevance))]
    assert not any(p["malformed"] for p in parts)
    mean = math.fsum(p["score"] for p in parts) / len(parts)
    assert all(p["expected"] == pytest.approx(mean, abs=1e-9) for p in parts)
    corrected = [score(f"[{label(i)}]", truth, kind="corrected")["score"] for i in range(len(relevance))]
    assert math.fsum(corrected) / len(corrected) == pytest.approx(0, abs=1e-9)


@given(grades, st.sampled_from(ANY_RELEVANCE), st.floats(-100, -1e-6), st.floats(0, 0.99), st.floats(0, 1))
def test_malformed_is_the_worst_of_all(relevance, kind, malformed, weight, share):
    truth = truth_of(relevance)
    format_weight = -malformed * weight * share
    settings = {"kind": kind, "malformed": malformed, "format_weight": format_weight, "free_chars": 5, "max_chars": 6}
    settings["length_weight"] = -malformed * weight - format_weight
    worst = score("I cannot say", truth, **settings)["score"]
    for i in range(len(relevance)):
        for form in ("[{}]", "well, <answer>[{}]</answer> it is"):
            assert worst < score(form.format(label(i)), truth, **settings)["score"]


@given(grades, st.sampled_from(ANY_RELEVANCE), st.data())
def test_the_order_shown_changes_nothing(relevance, kind, data):
    order = data.draw(st.permutations(range(len(relevance))))
    truth = truth_of(relevance)
    other = {
        "candidates": [truth["candidates"][i] for i in order],
        "target": order.index(truth["target"]),
        "relevance": [relevance[i] for i in order],
    }
    for place, i in enumerate(order):
        here, there = (score(f"[{label(p)}]", t, kind=kind) for p, t in ((i, truth), (place, other)))
        assert here == pytest.approx(there)


@given(grades)
def test_worth_falls_as_relevance_rises(relevance):
    worth = graded_values(relevance)
    assert all(0 <= w <= 1 for w in worth)
    pairs = sorted(zip(relevance, worth, strict=True))
    assert all(a[1] >= b[1] for a, b in itertools.pairwise(pairs))
    assert worth[relevance.index(min(relevance))] == 1.0


@given(st.integers(2, 30), st.data())
def test_one_positive_and_its_grades_agree_under_every_kind(n, data):
    target = data.draw(st.integers(0, n - 1))
    plain = {"candidates": [f"text {i}" for i in range(n)], "target": target}
    graded = plain | {"relevance": [float(i == target) for i in range(n)]}
    for i in range(n):
        one = score(f"[{label(i)}]", plain)
        for kind in ("published", "graded", "cost_aware"):
            assert score(f"[{label(i)}]", plain, kind=kind) == one
            assert score(f"[{label(i)}]", graded, kind=kind) == one


# ---------------------------------------------------------------- wrong ground truths and settings


@pytest.mark.parametrize(
    ("truth", "field"),
    [
        (None, "ground_truth"),
        ("A", "ground_truth"),
        ([], "ground_truth"),
        ({}, "ground_truth"),
        ({"target": 0}, "candidates"),
        ({"candidates": None, "target": 0}, "candidates"),
        ({"candidates": "abc", "target": 0}, "candidates"),
        ({"candidates": []}, "target"),
        ({"candidates": [], "target": 0}, "target"),
        ({"candidates": ["a", "b"]}, "target"),
        ({"candidates": ["a", "b"], "target": None}, "target"),
        ({"candidates": ["a", "b"], "target": 2}, "target"),
        ({"candidates": ["a", "b"], "target": -1}, "target"),
        ({"candidates": ["a", "b"], "target": "first"}, "target"),
        ({"candidates": ["a", "b"], "target": [0]}, "target"),
        ({"candidates": ["a", "b"], "target": float("nan")}, "target"),
        ({"candidates": ["a", "b"], "target": float("inf")}, "target"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [1.0]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": ["x", 1]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [None, 1.0]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": 3}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": "10"}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": ["1", "0"]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": {"a": 1, "b": 0}}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [10**400, 0]}, "relevance"),
        ({"candidates": ["a", None], "target": 0}, "candidates has to be a list of texts, number 1 is None"),
        ({"candidates": [{"text": "a"}, {"text": "b"}], "target": 0}, "candidates .* number 0 is {'text'"),
        ({"candidates": [1, 2], "target": 0}, "candidates"),
        ({"candidates": {"a", "b"}, "target": 0}, "candidates"),
        ({"candidates": {"a": 1, "b": 2}, "target": 0}, "candidates"),
        ({"candidates": ["a", "b"], "target": 0.9}, "target"),
        ({"candidates": ["a", "b"], "target": -0.5}, "target"),
        ({"candidates": ["a", "b"], "target": "1"}, "target"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [float("nan"), 1.0]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [float("inf"), 1.0]}, "relevance"),
        ({"candidates": ["a", "b"], "target": 0, "relevance": [1e308, -1e308]}, "relevance"),
    ],
)
def test_a_wrong_ground_truth_is_named(truth, field):
    with pytest.raises(ValueError, match=field):
        score("[A]", truth)
    with pytest.raises(ValueError, match=field):
        relevance_of(truth)


@pytest.mark.parametrize("malformed", [0.0, 0.5, float("nan"), float("-inf")])
def test_malformed_has_to_be_worse_than_any_exclusion(malformed):
    with pytest.raises(ValueError, match="malformed"):
        score("[A]", malformed=malformed)


def test_an_unknown_kind_names_the_known_ones():
    with pytest.raises(ValueError, match="published, corrected"):
        score("[A]", kind="paper")


# ---------------------------------------------------------------- how verl loads it


REWARDS = ("exclusion", "direct")


@pytest.mark.parametrize("module", REWARDS)
def test_verl_loads_it_as_a_package_and_as_a_file(module):
    load_extern_object = pytest.importorskip("verl.utils.import_utils").load_extern_object
    path = list(sys.path)
    for place in (f"pkg://reward_fns.{module}", str(FOLDER / f"{module}.py"), f"file://{FOLDER / module}.py"):
        function = load_extern_object(place, "compute_score")
        keywords = {"data_source": "rec-movie", "solution_str": "?", "ground_truth": ONE, "extra_info": {}}
        assert function(**keywords)["score"] == -0.5
        batch = load_extern_object(place, "compute_score_batch")
        assert batch(["x"], ["?"], [ONE])[0]["score"] == -0.5
    assert sys.path == path


@pytest.mark.parametrize("module", REWARDS)
def test_a_file_alone_finds_its_siblings_and_not_those_of_another_copy(module, tmp_path):
    """As verl loads a plain path (spec_from_file_location), with nothing installed and another reward_fns on the path."""
    (tmp_path / "reward_fns").mkdir()
    (tmp_path / "reward_fns" / "__init__.py").write_text("")
    (tmp_path / "reward_fns" / "answers.py").write_text("raise ImportError('the wrong one')")
    code = (
        "import importlib.util as u, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"spec = u.spec_from_file_location('custom_module_1', {str(FOLDER / f'{module}.py')!r})\n"
        "module = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        f"print(module.compute_score('x', '?', {ONE!r})['score'], sys.path[0] == {str(tmp_path)!r})"
    )
    # -S: no site-packages; -I: no environment and no current folder
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "-0.5 True", done.stderr


def test_a_file_without_its_siblings_leaves_the_path_as_it_was(tmp_path):
    (tmp_path / "exclusion.py").write_text((FOLDER / "exclusion.py").read_text(encoding="utf-8"), encoding="utf-8")
    code = (
        f"import runpy, sys\npath = list(sys.path)\ntry: runpy.run_path({str(tmp_path / 'exclusion.py')!r})\n"
        "except ImportError: print(sys.path == path)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize("module", sorted(p.stem for p in FOLDER.glob("*.py")))
def test_rewards_import_the_standard_library_only(module):
    for node in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
        for name in names:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "reward_fns"}, name


def test_rewards_run_without_any_installed_package():
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r})\n"
        "from reward_fns.exclusion import compute_score\n"
        f"print(compute_score('x', '[A]', {ONE!r})['score'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0"


@pytest.mark.parametrize("module", sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "__init__"))
def test_every_module_can_be_imported_first(module):
    code = f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r}); import reward_fns.{module}"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)


# ---------------------------------------------------------------- faults of the published code


def test_fault_1_the_format_of_the_response_changes_the_reward():
    good = "<think>b fits best</think>\n<answer>[A]</answer>"
    bad = [good.replace("</answer>", ""), good.replace("[A]", ""), good.replace("</think>", ""), "[A], maybe"]
    assert score(good)["score"] == 1.0
    assert {score(answer)["score"] for answer in bad} == {-0.5}
    untidy = [f"Sure. {good}", f"{good}!", good + "<answer>[A]</answer>"]
    assert {score(answer)["score"] for answer in untidy} == {0.95}


def test_fault_2_tags_of_a_prompt_are_not_an_answer():
    # verl passes the prompt with the row; it has no say, whatever tags it holds
    prompt = "Think inside <think> </think>, then answer: <answer>[A]</answer>"
    for response, why in (("", "no_answer"), ("I do not know", "not_a_candidate")):
        parts = compute_score("rec-movie", response, ONE, {"prompt": prompt})
        assert (parts["malformed"], parts[why]) == (1.0, 1.0)


def test_fault_3_a_text_is_not_a_list_of_its_characters():
    with pytest.raises(ValueError, match="candidates"):
        score("a", {"candidates": "abcd", "target": 0})


@pytest.mark.parametrize("n", [2, 5, 10, 20])
def test_fault_4_a_random_exclusion_is_worth_nothing_once_corrected(n):
    truth = {"candidates": [f"text {i}" for i in range(n)], "target": 0}
    answers = [f"[{label(i)}]" for i in range(n)]
    plain = [score(a, truth)["score"] for a in answers]
    assert sum(plain) / n == pytest.approx((n - 1) / n)  # nearly saturated at 20
    assert sum(score(a, truth, kind="corrected")["score"] for a in answers) / n == pytest.approx(0)
    assert [score(a, truth)["expected"] for a in answers] == pytest.approx([(n - 1) / n] * n)


def test_fault_8_equal_texts_have_rewards_of_their_own():
    truth = {"candidates": ["Twin", "Twin", "Other"], "target": 1}
    assert [score(f"[{x}]", truth)["score"] for x in "ABC"] == [1.0, 0.0, 1.0]
    assert score("[A]", truth)["pool_size"] == 3.0


def test_the_module_is_the_one_that_recipes_name():
    assert importlib.import_module("reward_fns.exclusion").compute_score is compute_score
