"""GraphRouter's CSV: grouping, the three weightings, ties, splits and every reason to drop or refuse."""

import csv
import json
import re
from collections import Counter

import pytest

from data_prep.graphrouter import load, read
from data_prep.sampling import Options
from iranker_verl.errors import UserError

HEADER = ["task_id", "query", "ground_truth", "metric", "llm", "effect", "cost", "cost_raw"]
# effect, cost, cost_raw. Performance: big (1 > .6 > .5). Cost: .2e - .8c = big -.44, mid .04, tiny .092. Balance: mid
# (.5 * .6 - .5 * .1 = .25) before tiny (.246) and big (.1).
LLMS = {"big": (1.0, 0.8, 0.004), "mid": (0.6, 0.1, 0.002), "tiny": (0.5, 0.008, 0.001)}


def rows_of(query, outcomes=None, task="t"):
    return [[task, query, "", "em", llm, *values] for llm, values in (outcomes or LLMS).items()]


def write(path, rows, header=HEADER):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "router_data.csv"


def everything(result):
    return result.train + result.test


def test_the_weights_decide(file):
    result = load(write(file, rows_of("what?\nA) x, y\nB) z") + rows_of("who?")), Options())
    for dataset, best, preference in [
        ("router-performance", "big", "quality only"),
        ("router-cost", "tiny", "quality 0.2, cost 0.8"),
        ("router-balance", "mid", "quality 0.5, cost 0.5"),
    ]:
        tasks = {task.id: task for task in everything(result[dataset])}
        task = tasks[f"{dataset}:t:2"]  # row 2 of the file, after the header
        assert set(tasks) == {f"{dataset}:t:2", f"{dataset}:t:5"}
        assert task.scenario == "routing"
        assert task.context == f"Query: what?\nA) x, y\nB) z\nPreference: {preference}"
        assert task.candidates[task.target].id == best
        assert len(result[dataset].train) == len(result[dataset].test) == 1
        assert not result[dataset].dropped


def test_without_descriptions_the_average_cost_of_the_training_queries_is_shown(file):
    cheap = {llm: (e, c, raw / 10) for llm, (e, c, raw) in LLMS.items()}
    result = load(write(file, rows_of("a") + rows_of("b", cheap)), Options())["router-cost"]
    trained_on_a = result.train[0].context.startswith("Query: a")
    shown = {c.id: c.text for c in result.test[0].candidates}
    assert shown["big"] == ("big, avg cost 0.004" if trained_on_a else "big, avg cost 0.0004")
    assert {c.id: c.text for c in result.train[0].candidates} == shown
    assert not re.search(r"e-\d", " ".join(shown.values()))


def test_descriptions_beside_the_file(file):
    described = {
        "big": {"description": "knows\n it all", "price": "$3/M"},
        "mid": {"feature": "fair", "input_price": 0.2, "output_price": 0.3, "size": "7B"},
        "tiny": {"price": 0.1},
    }
    file.with_name("llm_descriptions.json").write_text(json.dumps(described))
    task = load(write(file, rows_of("a") + rows_of("b")), Options())["router-cost"].train[0]
    assert {c.id: c.text for c in task.candidates} == {
        "big": "big, $3/M: knows it all",
        "mid": "mid, $0.2 in, $0.3 out per 1M tokens: fair",
        "tiny": "tiny, 0.1",
    }
    file.with_name("llm_descriptions.json").write_text("{}")
    with pytest.raises(UserError, match=r"llm_descriptions.json: no description of 'big'"):
        load(file, Options())
    file.with_name("llm_descriptions.json").write_text("{")
    with pytest.raises(UserError, match=r"llm_descriptions.json: not a readable JSON"):
        load(file, Options())
    file.with_name("llm_descriptions.json").write_text("[]")
    with pytest.raises(UserError, match="not an object"):
        load(file, Options())


def test_a_tie_goes_to_the_cheaper_one_and_a_full_tie_is_dropped(file):
    cheaper = {"big": (1, 0.5, 0.004), "mid": (1, 0.5, 0.002), "tiny": (0, 0.5, 0.001)}
    tied = {"big": (1, 0.5, 0.002), "mid": (1, 0.5, 0.002), "tiny": (0, 0.0, 0.001)}
    rows = rows_of("cheaper", cheaper) + rows_of("tied", tied) + rows_of("clear")
    result = load(write(file, rows), Options())
    by_query = {t.context.split("\n")[0]: t for t in everything(result["router-performance"])}
    assert set(by_query) == {"Query: cheaper", "Query: clear"}
    task = by_query["Query: cheaper"]
    assert task.candidates[task.target].id == "mid"
    assert result["router-performance"].dropped == {"queries: tied": 1}
    assert result["router-balance"].dropped == {"queries: tied": 1}
    assert result["router-cost"].dropped == {}  # .2 - .4 < 0: tiny is the best there, alone


def test_every_reason_to_drop(file):
    missing_llm = rows_of("no tiny")[:2]
    no_number = rows_of("nan", LLMS | {"mid": ("NaN", 0.1, 0.1)})
    empty = rows_of("empty", LLMS | {"mid": (0.5, "", 0.1)})
    rows = missing_llm + no_number + empty + rows_of("x" * 11) + rows_of("good") * 2 + [[]] + rows_of("fine")
    result = load(write(file, rows), Options(max_chars=10))
    for made in result.values():
        assert sorted(t.context.split("\n")[0] for t in everything(made)) == ["Query: fine", "Query: good"]
        assert made.dropped == {
            "queries: an LLM is missing": 1,
            "queries: a number is missing": 2,
            "queries: longer than 10 characters": 1,
            "rows: repeated query and LLM": 3,
            "rows: blank": 1,
        }


def test_one_split_by_query_for_all_three_and_never_by_row(file):
    # One text under two task ids, and in another case, is one query for the split.
    rows = [row for n in range(40) for row in rows_of(f"query {n}")]
    rows += [row for n in range(40) for row in rows_of(f"Query  {n}", task="other")]
    result = load(write(file, rows), Options())
    splits = []
    for made in result.values():
        train, test = (
            {" ".join(t.context.split("\n")[0].removeprefix("Query: ").casefold().split()) for t in side}
            for side in (made.train, made.test)
        )
        assert (len(train), len(test)) == (32, 8)
        assert not train & test
        assert (len(made.train), len(made.test)) == (64, 16)
        splits.append((train, test))
    assert splits[0] == splits[1] == splits[2]


def test_every_task_has_an_order_of_its_own(file):
    rows = [row for n in range(300) for row in rows_of(f"query {n}")]
    result = load(write(file, rows), Options(max_train=100, max_test=30))
    performance = result["router-performance"]
    assert (len(performance.train), len(performance.test)) == (100, 30)
    orders = Counter(tuple(c.id for c in t.candidates) for t in performance.train)
    assert len(orders) == 6
    places = Counter(t.target for t in performance.train)  # 33 each, standard deviation 4.7
    assert all(10 <= places[n] <= 57 for n in range(3)), places


def test_only_what_is_asked_for(file):
    assert list(load(write(file, rows_of("a") + rows_of("b")), Options(), ["router-cost"])) == ["router-cost"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (rows_of("a"), ["query;llm"], "no column 'task_id'; a GraphRouter CSV has task_id,query,llm"),
        ([], [], "no column 'task_id'"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1.0]], HEADER, "row 5: 6 fields, 8 expected"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", "good", 1, 1]], HEADER, "row 5: effect is 'good', not a number"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1, "$2", 1]], HEADER, r"row 5: cost is '\$2', not a number"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1, 1, "inf"]], HEADER, "row 5: cost_raw is 'inf', not a number"),
        ([["t", " ", "", "em", "big", 1, 1, 1]], HEADER, "row 2: query is empty"),
        ([["t", "a", "", "em", "", 1, 1, 1]], HEADER, "row 2: llm is empty"),
        (rows_of("a")[:1], HEADER, r"1 LLM\(s\) in column llm; ranking needs at least 2"),
        ([], HEADER, r"0 LLM\(s\)"),
    ],
)
def test_what_is_refused(file, rows, header, message):
    with pytest.raises(UserError, match=message) as error:
        load(write(file, rows, header), Options())
    assert "router_data.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_files(file):
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        list(read(file, Counter()))
    file.write_text(",".join(HEADER) + '\nt,"a query that never cl')
    with pytest.raises(UserError, match=r"not a whole CSV file \(unexpected end of data\)"):
        list(read(file, Counter()))
    file.write_bytes(b"task_id,query\xff\n")
    with pytest.raises(UserError, match="byte 13 is not utf-8 text"):
        list(read(file, Counter()))
