"""Which reasoning traces are kept of a training's rollouts, and which lines are refused."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.collect import collect_traces, read_template_id
from iranker_verl.ranking.templates import load
from tests.evaluation.cot.samples import LONG, TEMPLATE, dump, line

THREE = ["Swifts fly for months.", "Swift code is compiled.", "Swift wrote a book."]


def counted(store, **wanted):
    counts = dict(store.manifest["counts"])
    assert counts["answers"] == sum(n for what, n in counts.items() if what not in ("answers", "cut off"))
    return {what: n for what, n in counts.items() if n} == {k.replace("_", " "): n for k, n in wanted.items()}


def test_a_golden_store(tmp_path):
    lines = [
        line(step=7),
        line(answer="[A]", score=0.0, reasoning="The other way round. " * 5, context="another query"),  # not the best
        line(output=f"<think>{LONG}</think> <answer>[B]</answer> Good luck!"),  # not tidy
        line(output=f"<think>{LONG}</think> <answer>[C]</answer>"),  # nobody
        line(output=f"<think>{LONG}"),
        line(output="[B]"),  # no reasoning
        line(reasoning="Because."),  # too short
        line(reasoning=LONG.upper().replace(" ", "\n ")),  # repeated
    ]
    store = collect_traces(dump(tmp_path / "r", step7=lines), TEMPLATE, seed=4)
    assert counted(store, answers=8, malformed=3, no_reasoning=2, below_the_best_reward=1, repeated=1, kept=1)
    [one] = store.traces
    assert (one.task_id, one.group, one.dataset, one.scenario) == ("t1", "g1", "passage-5", "passage")
    assert one.candidates == ("Swifts fly for months.", "Swift code is compiled.")
    assert (one.answer, one.reasoning, one.score, one.step) == ((1,), LONG, 1.0, 7)
    assert (store.manifest["template_id"], store.manifest["template_hash"]) == (TEMPLATE.id, TEMPLATE.hash)
    assert (store.manifest["kind"], store.manifest["answer"]) == ("exclusion", "label")
    assert (store.manifest["seed"], store.manifest["files"]) == (4, 1)
    assert store.manifest["rollouts"] == str(tmp_path / "r")


def test_the_prompt_may_have_opened_the_reasoning(tmp_path):
    store = collect_traces(dump(tmp_path, step1=[line(output=f"{LONG}\n</think>\n[B]")]), TEMPLATE)
    assert [t.reasoning for t in store.traces] == [LONG]


def test_the_best_reward_is_that_of_the_dataset_and_the_pools_size(tmp_path):
    rows = [
        line(context="a", score=0.5, reasoning="a" + LONG),  # the best with two candidates
        line(context="b", score=0.4, reasoning="b" + LONG),
        line(context="c", score=0.3, reasoning="c" + LONG, candidates=THREE),  # the best with three
        line(context="d", score=0.2, reasoning="d" + LONG, dataset="passage-7"),  # the best of its dataset
        line(context="e", score=0.9, reasoning="short"),  # no reasoning, so it sets no mark
    ]
    folder = dump(tmp_path, step1=rows)
    assert [t.context for t in collect_traces(folder, TEMPLATE).traces] == ["a", "c", "d"]
    assert [t.context for t in collect_traces(folder, TEMPLATE, min_score=0.3).traces] == ["a", "b", "c"]
    assert collect_traces(folder, TEMPLATE, min_score=0.95).traces == ()
    nearly = dump(
        tmp_path / "float32", step1=[line(score=1.0), line(score=0.99999994, context="b", reasoning="b" + LONG)]
    )
    assert len(collect_traces(nearly, TEMPLATE).traces) == 2


def test_of_a_context_few_candidates_and_late_steps_come_first(tmp_path):
    rows = {
        "step2": [line(step=2, reasoning="2 " + LONG), line(step=2, reasoning="3 of 3 " + LONG, candidates=THREE)],
        "step10": [line(step=10, reasoning="10 " + LONG), line(step=10, reasoning="10 of 3 " + LONG, candidates=THREE)],
    }
    folder = dump(tmp_path, **rows)

    def said(k):
        return [t.reasoning.removesuffix(LONG).strip() for t in collect_traces(folder, TEMPLATE, per_context=k).traces]

    assert said(1) == ["10"]
    assert said(3) == ["10", "2", "10 of 3"]
    assert said(9) == ["10", "2", "10 of 3", "3 of 3"]


@given(order=st.permutations(range(8)), per_context=st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_the_order_of_the_lines_is_of_no_matter(tmp_path_factory, order, per_context):
    rows = [
        line(reasoning=f"{i % 5} {LONG}", context="ab"[i % 2], score=1.0 - (i == 3), task_id=f"t{i}") for i in range(8)
    ]
    rows[7] = rows[1] | {"ranking": rows[1]["ranking"] | {"task_id": "another with the same question"}}
    folder = tmp_path_factory.mktemp("r")
    wanted = collect_traces(dump(folder, step1=rows), TEMPLATE, per_context=per_context)
    again = collect_traces(dump(folder, step1=[rows[i] for i in order]), TEMPLATE, per_context=per_context)
    assert again.traces == wanted.traces and again.hash == wanted.hash


def test_the_seed_decides_between_equals(tmp_path):
    folder = dump(tmp_path, step1=[line(reasoning=f"{i} {LONG}") for i in range(6)])
    assert collect_traces(folder, TEMPLATE, seed=1).traces == collect_traces(folder, TEMPLATE, seed=1).traces
    assert len({collect_traces(folder, TEMPLATE, seed=seed).traces for seed in range(20)}) > 1


def test_direct_rankings_have_reasoning_too(tmp_path):
    template = load("direct-think-label")
    rows = [line(answer="[B] > [A]", template=template), line(answer="[B]", template=template, reasoning="2" + LONG)]
    store = collect_traces(dump(tmp_path, step1=rows), template)
    assert [t.answer for t in store.traces] == [(1, 0)] and store.manifest["counts"]["malformed"] == 1


# ---------------------------------------------------------------- broken input


def test_a_line_that_was_cut_off_is_counted_where_it_is_the_last(tmp_path):
    folder = dump(tmp_path, step1=[line()], step2=[line(reasoning="2 é" + LONG)])
    whole = (folder / "2.jsonl").read_bytes()
    for end in (whole.index("é".encode()) + 1, len(whole) - 5, 1):  # in the middle of a letter, too
        (folder / "2.jsonl").write_bytes(whole[:end])
        store = collect_traces(folder, TEMPLATE)
        assert counted(store, answers=1, cut_off=1, kept=1)
    (folder / "2.jsonl").write_bytes(whole[:-1])  # all of it is there but the line feed
    assert len(collect_traces(folder, TEMPLATE, per_context=2).traces) == 2
    (folder / "2.jsonl").write_bytes(whole[:30] + b"\n" + whole)
    with pytest.raises(UserError, match=r"2\.jsonl line 1: not JSON"):
        collect_traces(folder, TEMPLATE)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ({"output": "x", "score": 1.0, "step": 1, "gts": {}}, "KeyError: 'ranking'"),  # verl's own dump
        ({**line(), "ranking": None}, "no whole question and answer"),
        ({**line(), "score": None}, "no whole question and answer"),
        ({**line(), "score": float("nan")}, "score is nan"),
        (line(context=None), "no whole question and answer"),
        (line(candidates="ABC"), "no whole question and answer"),
        (line(candidates=None), "no whole question and answer"),
        ([1], "no whole question and answer"),
        ({**line(), "output": "\ud800"}, "no whole question and answer"),
    ],
)
def test_a_line_that_lacks_something_is_named(tmp_path, broken, words):
    (tmp_path / "5.jsonl").write_text(json.dumps(line()) + "\n" + json.dumps(broken) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        collect_traces(tmp_path, TEMPLATE)
    assert "5.jsonl line 2" in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_line_separators_in_texts_are_text(tmp_path):
    odd = "a\u2028b\u0085c " + LONG
    assert [t.reasoning for t in collect_traces(dump(tmp_path, step1=[line(reasoning=odd)]), TEMPLATE).traces] == [odd]


def test_answers_to_another_template_are_refused(tmp_path):
    folder = dump(tmp_path, step1=[line(), line(template=load("think-text"))])
    with pytest.raises(UserError, match=r"1.jsonl line 2 was made with template think-text"):
        collect_traces(folder, TEMPLATE)
    assert read_template_id(folder) == "think-label"
    with pytest.raises(UserError, match="setwise-label is of kind setwise"):
        collect_traces(folder, load("setwise-label"))


def test_no_rollouts(tmp_path):
    (tmp_path / "notes.jsonl").write_text("{}")
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"trainer\.rollout_data_dir"):
            collect_traces(folder, TEMPLATE)
    dump(tmp_path, step1=[])
    assert collect_traces(tmp_path, TEMPLATE).traces == ()
    with pytest.raises(UserError, match="hold no answer"):
        read_template_id(tmp_path)
