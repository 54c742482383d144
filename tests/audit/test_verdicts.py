"""The audit finds every fault of the published code by its own verdict, and none in our rewards."""

import asyncio
import math
import random
import re
import sys
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from iranker_verl.audit import growth as audit_time
from iranker_verl.audit import rows as audit_rows
from iranker_verl.audit import scorer
from iranker_verl.audit.audit import audit, load_function
from iranker_verl.audit.policies import Dialect, Task, dialects, policies
from iranker_verl.audit.rows import examine_rows, lock_step
from reward_fns.answers import label, parse_exclusion, parse_ranking
from reward_fns.direct import compute_score as direct
from reward_fns.exclusion import compute_score as exclusion
from tests.reward_fns.published_faults import Published, letter, published_reward, row

CLEAN = Published()


@pytest.fixture(autouse=True)
def shorter(monkeypatch):
    """Long enough to show quadratic work."""
    monkeypatch.setattr(audit_time, "LENGTHS", (64, 256, 1024, 4096, 16_384))


@cache
def rows(tasks=25, candidates=20):
    return CLEAN.recommendation(tasks, candidates)


def verdict(report, name):
    return next(v for v in report.verdicts if v.name == name)


def run(published, **options):
    """The whole of a published set-up: reward on prompt + response, parser, data and test loop."""
    data = published.recommendation(25) + published.routing(60)
    return audit(
        published.exclusion,
        data,
        sees_prompt=True,
        parser=published.parse,
        requests=published.requests(),
        limit=30,
        **options,
    )


# ---------------------------------------------------------------- the eight faults


def test_without_faults_nothing_is_flagged():
    report = run(CLEAN)
    assert report.flagged == []
    assert [v.name for v in report.verdicts if v.flagged is None] == ["wrong expectation"]  # it states none
    ranked = audit(CLEAN.direct, rows(), sees_prompt=True, ranking=True)
    assert ranked.flagged == []


@pytest.mark.parametrize(
    ("fault", "flagged"),
    [
        (1, {"constant term"}),
        (2, {"prompt leaks"}),
        (4, {"saturation"}),
        (5, {"split leaks", "fixed order"}),
        (6, {"parser guesses", "failures not counted"}),
        (7, {"lock step"}),
        (8, {"equal texts collapse"}),
    ],
)
def test_each_fault_alone_is_flagged_by_its_own_verdict(fault, flagged):
    assert set(run(Published(fault)).flagged) == flagged


def test_fault_3_a_ranking_of_characters_has_no_order(monkeypatch):
    monkeypatch.setattr(audit_time, "LENGTHS", (64, 256))  # it is slow, too
    report = audit(Published(3).direct, rows(), sees_prompt=True, ranking=True)
    assert {"order violations", "position bias"} <= set(report.flagged)


def test_all_faults_together_are_all_flagged():
    report = run(Published(1, 2, 4, 5, 6, 7, 8))
    assert {
        "constant term",
        "prompt leaks",
        "split leaks",
        "fixed order",
        "parser guesses",
        "failures not counted",
        "lock step",
        "equal texts collapse",
    } <= set(report.flagged)


def test_the_published_reward_as_it_was():
    data = rows()
    truth = data[0]["reward_model"]["ground_truth"]
    prompt = Task.from_row(data[0]).prompt + "Let me solve this step by step.\n<think>"
    wrong, best = ((truth["target"] + 1) % 20), truth["target"]
    answer = "\nhm\n</think>\n<answer>\n{}\n</answer>"
    # 1 - 1 for the format that never matches - .25 for each of two tags that the prompt holds as well
    assert published_reward(prompt + answer.format(truth["candidates"][wrong]), truth) == -0.5
    assert published_reward(prompt + answer.format(truth["candidates"][best]), truth) == -1.5

    def reward(data_source, solution_str, ground_truth, extra_info):
        return published_reward(solution_str, ground_truth)

    report = audit(reward, data, sees_prompt=True, limit=5)
    assert {
        "constant term",
        "saturation",
        "prompt leaks",
        "failures not counted",
        "super-linear time",
        "several answers",
        "equal texts collapse",
    } <= set(report.flagged)
    assert "earns -0.5" in verdict(report, "constant term").evidence
    assert "95%" in verdict(report, "saturation").evidence


# ---------------------------------------------------------------- ours


def graded_rows():
    data = []
    for number, base in enumerate(rows()):
        texts = base["reward_model"]["ground_truth"]["candidates"]
        relevance = [float((i * 7 + number) % 4) for i in range(len(texts))]
        made = row("trec", "train", f"query {number}", texts, relevance.index(max(relevance)))
        made["reward_model"]["ground_truth"]["relevance"] = relevance
        data.append(made)
    return data


def scored_rows():
    data = []
    for number, base in enumerate(rows(12, 10)):
        truth = base["reward_model"]["ground_truth"]
        effect = [(i * 3 + number) % 10 / 10 for i in range(10)]
        cost = [(i * 7 + number) % 11 / 10 for i in range(10)]
        made = row("router-cost", "train", f"query {number}", truth["candidates"], 0)
        score = [0.2 * e - 0.8 * c for e, c in zip(effect, cost, strict=True)]
        made["reward_model"]["ground_truth"] |= {"relevance": score, "effect": effect, "cost": cost}
        data.append(made)
    return data


@pytest.mark.parametrize(
    ("reward", "settings", "data"),
    [
        (exclusion, {}, rows),
        (exclusion, {"kind": "published"}, graded_rows),
        (exclusion, {"kind": "corrected"}, rows),
        (exclusion, {"kind": "corrected", "malformed": -2.0, "format_weight": 0.3, "length_weight": 0.5}, graded_rows),
        (exclusion, {"kind": "graded"}, graded_rows),
        (exclusion, {"kind": "cost_aware"}, rows),
        (exclusion, {"kind": "cost_aware", "effect_weight": 0.2, "cost_weight": 0.8}, scored_rows),
        (direct, {}, rows),
        (direct, {"kind": "rr"}, rows),
        (direct, {"kind": "ndcg"}, graded_rows),
        (direct, {"kind": "rr"}, graded_rows),
    ],
)
def test_ours_is_clean(reward, settings, data):
    ranking = reward is direct
    parser = parse_ranking if ranking else parse_exclusion
    report = audit(reward, data(), reward_kwargs=settings, ranking=ranking, parser=parser, limit=12)
    assert report.flagged == [], [v for v in report.verdicts if v.flagged]
    unexamined = {v.name for v in report.verdicts if v.flagged is None}
    assert unexamined <= {"lock step", "split leaks", "fixed order", "place of the best"}
    assert report.tasks == 12
    assert report.dialect == ("<answer>[A], [A], …</answer>" if ranking else "<answer>[A]</answer>")


@pytest.mark.parametrize("candidates", [2, 3, 5])
def test_ours_is_clean_on_small_pools(candidates):
    for kind in ("published", "corrected"):
        assert audit(exclusion, rows(12, candidates), reward_kwargs={"kind": kind}).flagged == []
    assert audit(direct, rows(12, candidates), ranking=True).flagged == []


def test_our_own_play_is_not_in_lock_step():
    episode = pytest.importorskip("iranker_verl.inference.episode")
    from iranker_verl.inference.engine import Generation
    from iranker_verl.ranking import Candidate, RankingTask
    from iranker_verl.ranking.templates import load

    names = tuple(Candidate(f"c{i}", f"thing {i}") for i in range(5))
    tasks = [RankingTask.with_positive(str(t), "passage", "passage-5", f"query {t}", names, "c1") for t in range(4)]
    log, step = [], dict.fromkeys(range(4), 0)

    class Engine:
        async def ask(self, messages, max_new_tokens, temperature=0.0, seed=None):
            task, clock = int(messages[-1]["content"].split("query ")[1][0]), asyncio.get_running_loop().time
            start = clock()
            await asyncio.sleep(0.002 * (1 + task))
            log.append({"task": task, "step": step[task], "start": start, "end": clock()})
            step[task] += 1
            fields = {"text": "[A]", "token_ids": [1], "prompt_tokens": 1}
            known = Generation.__dataclass_fields__
            return Generation(**{k: v for k, v in fields.items() if k in known})

    asyncio.run(episode.run_episodes(tasks, load("label"), Engine(), episode.EpisodeOptions(4)))
    assert len(log) == 16
    assert lock_step(log).flagged is False


# ---------------------------------------------------------------- single verdicts


def audited(change, **options):
    """An audit of our reward, whose dict ``change(parts, response, truth)`` has spoilt."""

    def reward(data_source, solution_str, ground_truth, extra_info):
        return change(exclusion(data_source, solution_str, ground_truth, extra_info), solution_str, ground_truth)

    return audit(reward, rows(8, 6), **options)


def test_a_part_that_never_changes():
    report = audited(
        lambda parts, *_: (
            parts | {"politeness": 0.25, "score": parts["score"] + 0.25, "expected": parts["expected"] + 0.25}
        )
    )
    assert report.flagged == ["constant term"]
    assert "politeness is 0.25" in verdict(report, "constant term").evidence


@pytest.mark.parametrize(("kind", "saturated"), [("corrected", False), ("published", True)])
def test_saturation_is_about_what_is_not_known(kind, saturated):
    """A reward that is off by a constant is centred all the same; one whose mean depends on the pool's size is not."""

    def reward(data_source, solution_str, ground_truth, extra_info):
        parts = exclusion(data_source, solution_str, ground_truth, kind=kind)
        return {"score": parts["score"] + 0.01, "malformed": parts["malformed"]}

    assert audit(reward, rows(8, 6)).flagged == (["saturation"] if saturated else [])


def test_an_expectation_that_is_not_true():
    report = audited(lambda parts, *_: parts | {"expected": 0.5})
    assert set(report.flagged) == {"wrong expectation", "saturation"}


def test_an_expectation_may_be_constant_in_truth():
    def percentile(data_source, solution_str, ground_truth, extra_info):
        parts, relevance = exclusion(data_source, solution_str, ground_truth), ground_truth["relevance"]
        worth = [sum(other > value for other in relevance) / (len(relevance) - 1) for value in relevance]
        place = parse_exclusion(solution_str, ground_truth["candidates"]).index
        return {"score": -1.0 if place is None else worth[place], "expected": 0.5, "malformed": parts["malformed"]}

    data = scored_rows()
    for number, made in enumerate(data):
        made["reward_model"]["ground_truth"]["relevance"] = [float((i * 3 + number) % 10) for i in range(10)]
    assert audit(percentile, data).flagged == []


def test_a_reward_that_is_upside_down():
    report = audited(lambda parts, *_: parts | {"score": -parts["score"]})
    assert {"no signal", "order violations", "not answering pays"} <= set(report.flagged)
    assert verdict(report, "saturation").flagged is None
    assert verdict(report, "equal texts collapse").flagged is None


def test_a_bonus_for_length_breaks_the_order():
    report = audited(lambda parts, response, _: parts | {"score": parts["score"] + len(response) / 1e4})
    assert "order violations" in report.flagged
    assert "verbose earns" in verdict(report, "order violations").evidence


def test_rankings_that_leave_holes_pay_no_more_than_the_best_last():
    def holes(data_source, solution_str, ground_truth, extra_info):
        """What it cannot read has no rank."""
        read = parse_ranking(solution_str, ground_truth["candidates"])
        written = " > ".join(f"[{label(i)}]" for i in read.order)
        return direct(data_source, written if read.order else "", ground_truth, coverage_weight=0.0)

    report = audit(holes, rows(6, 5), ranking=True)
    assert "order violations" in report.flagged
    assert "behind items that name no candidate" in verdict(report, "order violations").evidence


def test_a_reward_that_draws_is_not_diagnosed_further():
    draw = random.Random(1)
    report = audited(lambda parts, *_: parts | {"score": parts["score"] + draw.uniform(-1e-3, 1e-3)})
    assert report.flagged == ["not deterministic"]
    assert verdict(report, "order violations").flagged is verdict(report, "saturation").flagged is None
    assert verdict(audit(exclusion, rows(3, 4)), "not deterministic").flagged is False


def test_a_form_that_is_counted_is_no_count_of_failures():
    def formed(data_source, solution_str, ground_truth, extra_info):
        parts = exclusion(data_source, solution_str, ground_truth)
        return {key: parts[key] for key in ("score", "expected", "format")}

    assert audit(formed, rows(8, 6)).flagged == ["failures not counted"]


def test_what_a_reward_writes_into_its_arguments_spoils_no_other_call():
    def spoils(data_source, solution_str, ground_truth, extra_info):
        parts = exclusion(data_source, solution_str, ground_truth)
        assert extra_info.pop("num_turns") == 2 and extra_info.pop("rollout_reward_scores") == {}  # verl's
        ground_truth["candidates"].reverse()
        extra_info.clear()
        return parts

    assert audit(spoils, rows(8, 6)).flagged == []


def test_a_reward_that_prefers_a_place():
    def first(parts, response, truth):
        return parts | {"score": parts["score"] + 0.01 * ("[A]" in response and not parts["malformed"])}

    report = audited(first)
    assert "position bias" in report.flagged


def test_a_reward_of_not_answering():
    report = audited(lambda parts, *_: parts | {"score": max(parts["score"], 0.0)})
    assert {"not answering pays", "guesses", "several answers", "prompt leaks"} <= set(report.flagged)


def test_a_reward_that_guesses_from_substrings():
    def nearest(data_source, solution_str, ground_truth, extra_info):
        texts = ground_truth["candidates"]
        named = next((i for i, text in enumerate(texts) if text in solution_str), None)
        return exclusion(data_source, letter(named) if named is not None else "", ground_truth)

    report = audit(nearest, rows(8, 6))
    assert {"guesses", "several answers", "prompt leaks"} <= set(report.flagged)


def test_crashes_are_findings_and_async_functions_are_called():
    async def reward(data_source, solution_str, ground_truth, extra_info):
        if "\ud800" in solution_str:
            raise RuntimeError("cannot be\nencoded")
        return exclusion(data_source, solution_str, ground_truth, extra_info)

    report = audit(reward, rows(3, 4))
    assert report.flagged == ["crashes"]
    assert "RuntimeError (cannot be encoded)" in verdict(report, "crashes").evidence
    report = audited(lambda parts, r, _: parts if r else sys.exit(0))
    assert report.flagged == ["crashes"] and "SystemExit (0) on ''" in verdict(report, "crashes").evidence
    assert verdict(
        audited(lambda parts, r, _: parts | {"score": math.nan if r == "1" else parts["score"]}), "crashes"
    ).flagged


@pytest.mark.parametrize("number", [np.float32, np.float16, np.float64])
def test_numbers_of_numpy_are_scores(number):
    """verl and our training take float() of what a function returns."""

    def bare(data_source, solution_str, ground_truth, extra_info):
        return number(exclusion(data_source, solution_str, ground_truth)["score"])

    report = audited(lambda parts, *_: {key: number(value) for key, value in parts.items()})
    assert verdict(report, "crashes").flagged is False
    assert verdict(report, "failures not counted").flagged is False  # the other parts are read, too
    paid = {row.policy: row.mean for row in audit(bare, rows(8, 6)).paid}
    assert paid["oracle"] == 1.0 and paid["empty"] == -0.5


@pytest.mark.parametrize("score", ["0.5", None, [1.0], np.array([1.0]), np.bool_(True)], ids=lambda s: type(s).__name__)
def test_a_score_that_is_no_number_is_told_by_its_type(score):
    for result in (score, {"score": score, "malformed": 0.0}):
        with pytest.raises(ValueError, match=f"TypeError .the score is a {type(score).__name__}; it has to be a real"):
            audit(lambda result=result, **_: result, rows(2, 3))


def test_time_that_grows_faster_than_the_answer():
    def quadratic(parts, response, truth):
        for i in range(0, len(response), 4):
            sum(map(ord, response[:i:4]))
        return parts

    found = verdict(audited(quadratic), "super-linear time")
    assert found.flagged and "times a quarter of it" in found.evidence


@pytest.mark.parametrize(
    "pattern",
    [r"\[(.*?)\]", r"\\boxed\{(.*?)\}", r"\{(.*?)\}", "<(.*?)>", "&(.*?);"],
    ids=["[", "boxed", "{", "<", "&"],
)
def test_common_regexes_are_quadratic(pattern):
    found = verdict(
        audited(lambda parts, response, _: (re.findall(pattern, response, re.DOTALL), parts)[1]), "super-linear time"
    )
    assert found.flagged, found.evidence


def test_recursion_that_follows_the_answer_is_found():
    def depth(text):
        return 1 + depth(text[1:]) if text.startswith("<") else 0

    assert audited(lambda parts, response, _: (depth(response), parts)[1]).flagged == ["crashes"]


@pytest.mark.parametrize("when", ["what fits", "&#1&#1&#1"])  # an answer of a policy, and one that grows
def test_a_reward_that_hangs_is_stopped(monkeypatch, when):
    monkeypatch.setattr(scorer, "LIMIT_S", 0.05)

    def endless(parts, response, truth):
        while when in response:
            pass
        return parts

    found = verdict(audited(endless), "super-linear time")
    assert found.flagged and "more than 0.05 s on" in found.evidence


# ---------------------------------------------------------------- rows and logs


def test_queries_are_told_by_context_by_group_and_by_prompt():
    one, two = (
        row("passage-5", split, "same query", [f"{split} {i}" for i in range(5)], 0) for split in ("train", "test")
    )
    assert examine_rows([one, two])[0].flagged
    for made in (one, two):
        del made["extra_info"]["context"]
    for made in (one, two):  # candidates are cut out of the prompt, and what is left is the query
        made["prompt"][0]["content"] = "same query\n" + "\n".join(made["reward_model"]["ground_truth"]["candidates"])
    assert examine_rows([one, two])[0].flagged
    two["prompt"][0]["content"] = "another " + two["prompt"][0]["content"]
    assert examine_rows([one, two])[0].flagged is False
    one["extra_info"]["group"] = two["extra_info"]["group"] = "q7"
    assert examine_rows([one, two])[0].flagged
    assert examine_rows([one, one])[0].flagged is None


def test_an_index_at_which_the_best_stands_too_often():
    fair = CLEAN.recommendation(200, 5)
    assert examine_rows(fair)[2].flagged is False
    skewed = [
        row("rec-movie", "train", str(i), [f"t{i} {j}" for j in range(5)], 0 if i % 2 else i % 5) for i in range(200)
    ]
    found = examine_rows(skewed)[2]
    assert found.flagged and "position 1 of 5" in found.evidence
    assert examine_rows(skewed[:20])[2].flagged is None


def test_order_is_judged_where_candidates_meet_often():
    assert examine_rows(CLEAN.recommendation(30))[1].flagged is None
    assert examine_rows(CLEAN.routing(30))[1].flagged is False
    assert examine_rows(Published(5).routing(60))[1].flagged


def test_order_is_judged_by_so_many_pairs_at_most(monkeypatch):
    monkeypatch.setattr(audit_rows, "PAIRS", 3)
    shown = [row("routing", "train", str(i), [f"m{j}" for j in range(3)], 0) for i in range(40)]
    assert "3 of 3 pairs" in examine_rows(shown)[1].evidence
    monkeypatch.setattr(audit_rows, "PAIRS", 2)
    assert examine_rows(shown)[1].flagged is None


def test_lock_step_needs_a_log_that_can_show_it():
    assert lock_step(None).flagged is None
    assert lock_step([]).flagged is None
    assert lock_step(CLEAN.requests(tasks=1)).flagged is None
    assert lock_step(CLEAN.requests(steps=1)).flagged is None
    assert lock_step(Published(7).requests(tasks=2)).flagged
    assert lock_step(CLEAN.requests(tasks=2)).flagged is False
    even = [{"task": t, "step": s, "start": s, "end": s + 1} for t in range(3) for s in range(3)]
    assert lock_step(even).flagged is None  # nobody had to wait
    one_by_one = [
        {"task": t, "step": s, "start": 9 * t + s, "end": 9 * t + s + 0.5} for t in range(3) for s in range(3)
    ]
    assert lock_step(one_by_one).flagged is False


# ---------------------------------------------------------------- tasks, dialects, policies


def test_a_reordered_task_is_the_same_task():
    task = Task.from_row(scored_rows()[0])
    order = [3, 1, 2, 0, 9, 8, 7, 6, 5, 4]
    other = task.reordered(order)
    assert other.texts == [task.texts[i] for i in order]
    assert other.relevance == [task.relevance[i] for i in order]
    assert other.truth["cost"] == [task.truth["cost"][i] for i in order]
    assert other.texts[other.truth["target"]] == task.texts[task.truth["target"]]
    ids = [str(i) for i in range(10)]
    made = scored_rows()[0]
    made["extra_info"] |= {"candidate_ids": ids, "history_ids": ids}
    other = Task.from_row(made).reordered(order)
    assert (other.extra["candidate_ids"], other.extra["history_ids"]) == ([ids[i] for i in order], ids)


@pytest.mark.parametrize("dialect", dialects(False), ids=str)
def test_every_dialect_is_read_by_our_parser(dialect):
    task = Task.from_row(rows()[0])
    for place in (0, 7, 19):
        assert parse_exclusion(dialect.answer(task, [place]), task.texts).index == place


@pytest.mark.parametrize("dialect", dialects(True), ids=str)
def test_every_dialect_of_rankings_is_read_by_our_parser(dialect):
    task = Task.from_row(rows()[0])
    order = task.ranked()
    assert parse_ranking(dialect.answer(task, order), task.texts).order == tuple(order)


def test_the_dialect_is_the_one_that_the_reward_reads():
    def texts_only(data_source, solution_str, ground_truth, extra_info):
        return exclusion(data_source, "" if "[" in solution_str else solution_str, ground_truth)

    assert audit(texts_only, rows(5, 5)).dialect == "<answer>text</answer>"
    assert run(CLEAN).dialect == "<think>…</think> <answer>[A]</answer>"


def test_policies_are_what_they_are_called():
    task = Task.from_row(rows()[0])
    dialect = Dialect(False, True, True, False)
    made = policies(task, dialect, seed=1)
    assert len(made["random"]) == 20 and len(set(made["random"])) == 20
    assert made["oracle"] == [f"<answer>\n{letter(task.worst)}\n</answer>"]
    assert made["prompt echo"][0] == task.prompt
    assert policies(task, dialect, seed=1) == made


# ---------------------------------------------------------------- what is asked of the user


def test_nothing_to_audit_on():
    with pytest.raises(ValueError, match="nothing to audit on"):
        audit(exclusion, [])
    with pytest.raises(ValueError, match="row 1: not a row"):
        audit(exclusion, [rows()[0], {"data_source": "x"}])

    def broken(**_):
        raise KeyError("solution")

    with pytest.raises(ValueError, match="scores no answer at all: KeyError"):
        audit(broken, rows(2, 3))


def test_limit_and_seed_choose_the_tasks():
    seen = []

    def spy(data_source, solution_str, ground_truth, extra_info):
        seen.append(extra_info["task_id"])
        return exclusion(data_source, solution_str, ground_truth)

    assert audit(spy, rows(), limit=3, seed=5).tasks == 3
    first = set(seen)
    seen.clear()
    audit(spy, rows(), limit=3, seed=5)
    assert set(seen) == first and len(first) == 3


def test_a_module_of_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "mine_here.py").write_text("def compute_score(**_): return 3.0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder])  # as a script has it
    path = list(sys.path)
    assert load_function("pkg://mine_here")() == 3.0
    assert sys.path == path


def test_loading_as_verl_does(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def compute_score(**_): return 1.0\ndef other(**_): return 2.0\n")
    assert load_function(str(file))() == 1.0
    assert load_function(f"{file}:other")() == 2.0
    assert load_function(f"file://{file}:other")() == 2.0
    assert load_function("pkg://reward_fns.exclusion") is exclusion
    assert load_function("pkg://reward_fns/answers:parse_exclusion") is parse_exclusion
    (tmp_path / "bad.py").write_text("def (\n")
    for spec in ("pkg://no.such", f"{file}:missing", str(tmp_path / "none.py"), str(tmp_path / "bad.py"), "plain"):
        with pytest.raises(ValueError) as error:
            load_function(spec)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("import os\nscore = nothing\n", "NameError (name 'nothing' is not defined)"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError (two lines)"),
        ("raise ValueError('no data')\n", "ValueError (no data)"),
        ("import sys\nsys.exit('usage: mine')\n", "SystemExit (usage: mine)"),
        ("raise ImportError('two\\nlines')\n", "cannot be imported (two lines)"),
    ],
)
def test_a_module_that_fails_while_it_is_loaded_is_one_line(tmp_path, monkeypatch, content, words):
    name = f"failing_{abs(hash(content))}"
    (tmp_path / f"{name}.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    for place in (str(tmp_path / f"{name}.py"), f"pkg://{name}"):
        with pytest.raises(ValueError) as error:
            load_function(f"{place}:score")
        assert str(error.value).startswith(f"{place}: cannot be ") and words in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("parser", "words"),
    [
        (lambda response, texts: [].pop(), "the parser raises IndexError (pop from empty list) on '"),
        (lambda response: None, "the parser raises TypeError ("),
        (lambda response, texts: {"index": None}, "the parser returns a dict on '"),
        (lambda response, texts: 0.5, "the parser returns a float on '"),
        (lambda response, texts: sys.exit(0), "the parser raises SystemExit (0) on '"),
    ],
    ids=["raises", "other signature", "dict", "float", "exits"],
)
def test_a_parser_that_cannot_be_used_is_one_line(parser, words):
    with pytest.raises(ValueError) as error:
        audit(exclusion, rows(2, 3), parser=parser)
    assert words in str(error.value) and "None" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("read", "guesses"),
    [
        (None, False),
        ("", False),
        ([], False),
        (SimpleNamespace(index=None), False),
        (SimpleNamespace(order=()), False),
        (0, True),
        (np.int64(0), True),
        ("Heat", True),
        ([2], True),
        (SimpleNamespace(index=0), True),
        (SimpleNamespace(order=(1,)), True),
        (SimpleNamespace(order=None, index=0), True),
    ],
)
def test_what_a_parser_may_return(read, guesses):
    report = audit(exclusion, rows(2, 3), parser=lambda response, texts: read)
    assert verdict(report, "parser guesses").flagged is guesses


def test_a_report_is_plain_data():
    report = audit(exclusion, rows(3, 4))
    content = report.as_dict()
    assert content["flagged"] == [] and content["tasks"] == 3
    assert {p["policy"] for p in content["paid"]} >= {"oracle", "random", "hostile"}
    assert all(set(v) == {"name", "flagged", "evidence"} for v in content["verdicts"])
