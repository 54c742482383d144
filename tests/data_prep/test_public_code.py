"""The options of IRanker's public code: each switch alone, and all of them by ``iranker prepare --published``."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from data_prep.options import PUBLIC_CODE, Options, as_public_code
from data_prep.scenarios.interactions import Item, item_text
from data_prep.scenarios.routing import Query
from iranker_verl.cli import app
from iranker_verl.errors import UserError
from tests.data_prep.test_recommendation import interactions, made, only
from tests.data_prep.test_routing import results, run

# ten items in time order: a b c … j
EVENTS = [("u", item, time) for time, item in enumerate("abcdefghij")]


def test_the_first_items_and_the_next_one_as_the_positive(tmp_path):
    data = interactions(tmp_path, EVENTS, items="abcdefghijklmn")
    task = only(made(data, Options(history=2, candidates=3, history_from="first"), tmp_path))
    assert (task["history_ids"], task["candidate_ids"][0], task["time"]) == (["a", "b"], "c", 2.0)
    assert set(task["candidate_ids"][1:]) <= set("klmn")  # still never touched


@pytest.mark.parametrize(("start", "own"), [("first", "abc"), ("last", "hij")])
def test_negatives_may_be_what_the_user_touched_at_another_time(tmp_path, start, own):
    data = interactions(tmp_path, EVENTS, items="abcdefghijklmn")
    options = Options(history=2, candidates=5, history_from=start, negatives_avoid="task")
    drawn = set()
    for seed in range(12):
        task = only(made(data, replace(options, seed=seed), tmp_path / str(seed)))
        negatives = set(task["candidate_ids"][1:])
        assert len(negatives) == 4 and not negatives & set(own)
        drawn |= negatives
    assert drawn == set("abcdefghijklmn") - set(own)


def test_several_tasks_a_user_avoid_their_own_items_each(tmp_path):
    data = interactions(tmp_path, EVENTS[:5], items="abcdef")
    options = Options(history=1, candidates=4, negatives_avoid="task", tasks_per_user=2)
    tasks, _ = made(data, options, tmp_path)
    assert [set(t["candidate_ids"]) & {*t["history_ids"]} for t in tasks.values()] == [set(), set()]
    assert "e" in set().union(*(t["candidate_ids"][1:] for t in tasks.values()))  # the later task's positive


def test_the_title_alone():
    item = Item("1", "Heat", "1995", ("Action", "Crime"))
    assert (item_text(item), item_text(item, title_alone=True)) == ("Heat (1995), Action, Crime", "Heat")


def test_a_benchmark_is_left_out_and_counted():
    made_of = results("kept", Query("gone", "multi_news", "multi_news"))
    found, dropped = run(made_of, Options(leave_out="multi_news"), datasets=["router-balance"])
    assert [draft.task.context.split("\n")[0] for draft in found] == ["Query: kept"]
    assert dropped == {"router-balance": {"queries: of multi_news, left out": 1}}


def test_states_cap_the_training_tasks(tmp_path):
    (tmp_path / "raw" / "rec-game").mkdir(parents=True)
    events = [(f"u{u}", f"i{(3 * u + n) % 40}", 10 * n + u) for u in range(20) for n in range(8)]
    lines = ["user_id:token\titem_id:token\ttimestamp:float", *(f"{u}\t{i}\t{t}" for u, i, t in events)]
    (tmp_path / "raw" / "rec-game" / "X.inter").write_text("\n".join(lines))
    titles = [f"i{i}\tTitle {i}" for i in range(40)]
    (tmp_path / "raw" / "rec-game" / "X.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]))
    small = ["--history", "2", "--candidates", "4", "--max-states", "13"]  # 13 // 3 = 4 tasks
    done = CliRunner().invoke(
        app, ["prepare", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "out"), "--published", *small]
    )
    assert done.exit_code == 0, done.output
    train = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert Counter(row["extra_info"]["row_kind"] for row in train) == {"state": 12}
    assert {row["extra_info"]["template_id"] for row in train} == {"published"}
    assert [m["role"] for m in train[0]["prompt"]] == ["system", "user", "assistant"]
    made_with = json.loads((tmp_path / "out" / "manifest.json").read_text())["options"]
    assert {name: made_with[name] for name in PUBLIC_CODE} == PUBLIC_CODE | {"max_states": 13}


def test_published_takes_all_switches_but_those_given():
    assert as_public_code(Options()) == Options(**PUBLIC_CODE)
    assert as_public_code(Options(max_states=5, item_text="title")) == Options(**PUBLIC_CODE | {"max_states": 5})
    assert all(getattr(Options(), name) != value for name, value in PUBLIC_CODE.items())


@pytest.mark.parametrize("more", [{"split": "time"}, {"tasks_per_user": 2}])
def test_first_items_do_not_go_with_what_needs_the_last(more):
    with pytest.raises(UserError, match="history_from=first is one task a user"):
        Options(history_from="first", **more)


def test_the_ledger_names_every_switch():
    ledger = (Path(__file__).parents[2] / "docs" / "reproduction.md").read_text(encoding="utf-8")
    for name, value in PUBLIC_CODE.items():
        assert f"`--{name.replace('_', '-')} {value}`" in ledger
