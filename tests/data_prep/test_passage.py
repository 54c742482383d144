"""From queries with passages to the presets: what a preset takes, what it drops and why, what a text may be."""

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.scenarios import passage
from data_prep.scenarios.passage import Query
from data_prep.tasks import Draft, nothing_dropped, tables
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.text import clean


def query(id, size=5, selected=(2,), text="how", passage_text="word"):
    return passage.graded_query(id, text, [(str(i), f"{passage_text} {i}", float(i in selected)) for i in range(size)])


def made(queries, datasets=passage.DATASETS, options=None, side=None):
    dropped = nothing_dropped()
    drafts = list(passage.preset_drafts(queries, datasets, options or Options(), side, dropped))
    return drafts, {name: dict(+counts) for name, counts in dropped.items()}


def test_the_presets():
    assert {name: passage.passages_of(name, Options()) for name in passage.DATASETS} == {
        "passage-5": 5,
        "passage-7": 7,
        "passage-9": 9,
    }


def test_a_task():
    one = passage.graded_query(
        "f:1", "Why\n is \u2028 IT ", [(str(i), f" a\tb {i % 4} ", float(i == 3)) for i in range(5)]
    )
    (draft,), dropped = made([one], ["passage-5"], side="train")
    candidates = tuple(Candidate(str(i), text) for i, text in enumerate(["a b 0", "a b 1", "a b 2", "a b 3", "a b 0"]))
    task = RankingTask("passage-5:f:1", "passage", "passage-5", "Why is IT", candidates, (0.0, 0.0, 0.0, 1.0, 0.0))
    assert draft == Draft(task, "why is it", "train")
    assert not task.graded
    assert not dropped


def test_every_reason_to_drop():
    queries = [
        query("ok"),
        query("four", size=4),
        query("none", selected=()),
        query("two", selected=(1, 2)),
        query("empty", text=" \n"),
        passage.graded_query(
            "blank", "q", [(str(i), "\u2028" if i == 4 else f"x{i}", float(i == 1)) for i in range(5)]
        ),
        query("fits", passage_text="x" * 6),  # 5 times "xxxxxx 0", 8 characters: 40
        query("long", passage_text="x" * 6 + "y"),  # 45
    ]
    drafts, dropped = made(queries, ["passage-5"], Options(max_chars=40))
    assert [draft.task.id for draft in drafts] == ["passage-5:ok", "passage-5:fits"]
    assert dropped["passage-5"] == {
        "queries: not 5 passages": 1,
        "queries: not exactly one selected passage": 2,
        "queries: empty": 1,
        "queries: an empty passage": 1,
        "queries: passages longer than 40 characters": 1,
    }


def test_another_number_of_passages():
    queries = [query(str(size), size) for size in range(2, 12)]
    drafts, dropped = made(queries, ["passage-9"], Options(passages=10))
    assert [draft.task.id for draft in drafts] == ["passage-9:10"]
    assert dropped == {"passage-9": {"queries: not 10 passages": 9}}


PASSAGES = st.lists(
    st.tuples(st.sampled_from(["", " ", "a", "bb\n", "c" * 30]), st.sampled_from([0.0, 0.0, 1.0])), max_size=10
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "q", "r s"]), PASSAGES), max_size=30), st.integers(1, 80))
def test_every_query_is_a_task_or_counted(given_queries, max_chars):
    queries = [
        passage.graded_query(str(n), text, [(str(i), *pair) for i, pair in enumerate(pairs)])
        for n, (text, pairs) in enumerate(given_queries)
    ]
    drafts, dropped = made(queries, options=Options(max_chars=max_chars))
    used = Counter(draft.task.dataset for draft in drafts)
    for dataset, size in (("passage-5", 5), ("passage-7", 7), ("passage-9", 9)):
        assert used[dataset] + sum(dropped.get(dataset, {}).values()) == len(queries)
        # Which ones, said once more in other words.
        wanted = [
            f"{dataset}:{n}"
            for n, (text, pairs) in enumerate(given_queries)
            if text
            and len(pairs) == size
            and [relevance for _, relevance in pairs].count(1.0) == 1
            and [own.strip() for own, _ in pairs].count(next(own.strip() for own, r in pairs if r == 1.0)) == 1
            and all(own.strip() for own, _ in pairs)
            and sum(len(own.strip()) for own, _ in pairs) <= max_chars
        ]
        assert [draft.task.id for draft in drafts if draft.task.dataset == dataset] == wanted


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1))
def test_any_text_can_be_written(text):
    """Halves of characters, which JSON can hold, among them."""
    text = text + "\ud83dx\u2028y"
    one = passage.graded_query("1", text, [("0", text, 1.0), ("1", text + "!", 0.0)])
    (table,) = tables(passage.draft_or_count("wikiqa", one, "test", None, nothing_dropped()))
    (row,) = table.to_pylist()
    assert row["context"] == " ".join(row["context"].split())
    assert row["context"].endswith("\ufffdx y")
    assert row["candidates"] == [row["context"], row["context"] + "!"]
    assert pa.array([row["group"]]).to_pylist() == [row["context"].casefold()]


def test_html_stays():
    assert clean("use <br> & &amp; <b>not</b>\r\n<p") == "use <br> & &amp; <b>not</b> <p"


@pytest.mark.parametrize("relevance", [(2.0, 1.0, 0.0), (1.0, 1.0, 0.0)])
def test_graded(relevance):
    one = Query("7", "q", tuple(Candidate(str(i), "x") for i in range(3)), relevance)
    (draft,) = passage.draft_or_count("trec-x", one, "test", None, nothing_dropped())
    assert draft.task.graded
    assert (draft.task.id, draft.task.relevance, draft.side) == ("trec-x:7", relevance, "test")
