"""LLMRouter's three forms: what is found, read, dropped and refused; and real files, counted apart from the code."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from data_prep.options import Options
from data_prep.scenarios.descriptions import descriptions
from data_prep.scenarios.routing import ROUTERS
from data_prep.sources.llmrouter import find_llmrouter, read_llmrouter
from data_prep.tasks import nothing_dropped
from iranker_verl.errors import UserError
from tests.data_prep import source_runs
from tests.data_prep.source_runs import made
from tests.data_prep.source_runs import sources as found_by

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "router"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
PRICES = {
    "big": {"feature": "knows it all", "input_price": 2.0, "output_price": 6.0, "model": "maker/big", "size": "70B"},
    "tiny": {"feature": "quick", "input_price": 0.5, "output_price": 0.5, "model": "maker/tiny"},
}


def called(query, llm, performance, tokens, task="gsm8k", **more):
    one = {"task_name": task, "query": query, "metric": "em", "model_name": llm, "performance": performance}
    return one | {"input_tokens": tokens[0], "output_tokens": tokens[1], "response": "4"} | more


def both(query, big=1.0, tiny=1.0, tokens=((100, 50), (100, 200)), **more):
    """Dollars: big (200 + 300) / 1e6, tiny (50 + 100) / 1e6."""
    return [called(query, "big", big, tokens[0], **more), called(query, "tiny", tiny, tokens[1], **more)]


def lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def prices(folder, content=PRICES):
    (folder / "default_llm.json").write_text(json.dumps(content))


def run(raw, options=None):
    """The rows of all tasks, and what was dropped, as preparation gets at them."""
    rows, dropped, source = source_runs.run(find_llmrouter, raw, options, ROUTERS)
    assert (source.format, source.datasets) == ("LLMRouter", ROUTERS)
    return rows, dropped


def best(rows, dataset):
    return {row["group"]: row["candidate_ids"][row["relevance"].index(1)] for row in rows if row["dataset"] == dataset}


def test_the_long_form_with_prices_and_sides(tmp_path):
    prices(tmp_path)
    train = both("a\u2028b") + both("c", tiny=0.0, tokens=((0, 0), (1000, 1000))) + both("d", big=0.5, tiny=0.6)
    lines(tmp_path / "default_routing_train_data.jsonl", train)
    lines(tmp_path / "default_routing_test_data.jsonl", both("e", big=0.75, tiny=0.25))
    rows, dropped = run(tmp_path)
    assert not dropped
    assert {(row["group"], row["side"]) for row in rows} == {
        ("a b", "train"),
        ("c", "train"),
        ("d", "train"),
        ("e", "test"),
    }
    assert next(r for r in rows if r["group"] == "a b")["context"] == "Query: a\u2028b\nPreference: quality only"
    assert best(rows, "router-performance") == {"a b": "tiny", "c": "big", "d": "tiny", "e": "big"}
    raw = read_llmrouter(
        ((tmp_path / "default_routing_train_data.jsonl", None, 0),), descriptions(tmp_path / "default_llm.json")
    )
    assert raw.matrices()[1][0, :, 2].tolist() == pytest.approx([500e-6, 150e-6])
    # Costs in dollars / 1e6: a, d, e: big 500, tiny 150; c: big 0, tiny 1000. By train's 0 to 1000: .5, .15; 0, 1.
    # .5e - .5c of e: big .125, tiny .05; .2e - .8c of e: big -.25, tiny -.07.
    assert best(rows, "router-balance") == {"a b": "tiny", "c": "big", "d": "tiny", "e": "big"}
    assert best(rows, "router-cost")["e"] == "tiny"
    assert dict(zip(rows[0]["candidate_ids"], rows[0]["candidates"], strict=True)) == {
        "big": "big, $2.0 in, $6.0 out per 1M tokens: knows it all",
        "tiny": "tiny, $0.5 in, $0.5 out per 1M tokens: quick",
    }


def test_the_long_form_without_prices_has_no_costs(tmp_path):
    file = lines(tmp_path / "routing_data.jsonl", both("a", tiny=0.5) + both("b"))
    rows, dropped = run(file)
    assert best(rows, "router-performance") == {"a": "big"}
    assert sorted(rows[0]["candidates"]) == ["big", "tiny"]
    assert dropped == {
        "router-performance": {"queries: tied": 1},
        "router-cost": {"queries: no cost is known": 2},
        "router-balance": {"queries: no cost is known": 2},
    }
    (tmp_path / "llm_descriptions.json").write_text('{"big": {"price": "dear"}, "tiny": {"price": "cheap"}}')
    rows, again = run(file)
    assert sorted(rows[0]["candidates"]) == ["big, dear", "tiny, cheap"]
    assert again == dropped


def test_a_call_that_failed_is_no_cheap_answer(tmp_path):
    prices(tmp_path)
    records = both("a") + both("b")
    records += [called("c", "big", 1, (9, 9)), called("c", "tiny", 0, (0, 0), response="ERROR: timeout")]
    records += [called("d", "big", 1, (9, 9)), called("d", "tiny", 0, (0, 0), response="API Error: 429")]
    rows, dropped = run(lines(tmp_path / "routing_data_train.jsonl", records).parent)
    assert {row["group"] for row in rows} == {"a", "b"}
    assert dropped == {name: {"queries: a number is missing": 2} for name in ROUTERS}


def test_every_reason_to_drop_of_the_long_form(tmp_path):
    prices(tmp_path)
    records = [
        *both("a") * 2,
        *both("b"),
        called("c", "big", 1, (1, 1)),
        *both("x" * 11),
        *both("e", big=None),
        *both(" "),
        *both([{"role": "user", "content": "chat"}]),
        *both(None),
    ]
    file = lines(tmp_path / "routing_data.jsonl", records)
    file.write_text(file.read_text() + "\n \n" + json.dumps(called("d", "tiny", float("nan"), (1, 1))))
    rows, dropped = run(tmp_path, Options(max_query_chars=10))
    assert {row["group"] for row in rows} == {"a", "b"}
    reasons = {
        "rows: repeated query and LLM": 2,
        "queries: an LLM is missing": 2,
        "queries: longer than 10 characters": 1,
        "queries: a number is missing": 1,
        "rows: query is empty": 2,
        "rows: query is no text": 4,
        "lines: blank": 2,
    }
    assert dropped == {name: reasons for name in ROUTERS}


def test_scores_are_ranked_by_performance_and_then_by_price(tmp_path):
    prices(tmp_path)
    train = [
        {"question": "a", "scores": {"big": 1.0, "tiny": 0.0}, "cluster_id": 0},
        {"question": "b", "scores": {"big": 0.5, "tiny": 0.5}},  # as good: the cheaper one
        {"question": "b", "scores": {"big": 1.0, "tiny": 0.0}},
    ]
    (tmp_path / "train.json").write_text(json.dumps(train, indent=2))
    (tmp_path / "test.json").write_text(json.dumps([{"question": "c", "scores": {"tiny": 1, "big": 0}}]))
    rows, dropped = run(tmp_path)
    assert best(rows, "router-performance") == {"a": "big", "b": "tiny", "c": "tiny"}
    assert {(row["group"], row["side"]) for row in rows} == {("a", "train"), ("b", "train"), ("c", "test")}
    assert dropped["router-performance"] == {"rows: repeated query": 1}
    assert dropped["router-cost"] == {"rows: repeated query": 1, "queries: no cost is known": 3}
    assert {row["dataset"] for row in rows} == {"router-performance"}


def test_lists_and_llms_by_their_names_at_the_api(tmp_path):
    prices(tmp_path)
    names = ["maker/tiny", "maker/big"]
    records = [
        {"query": "a", "source": "nq", "llm_name_list": names, "perf_list": [0.5, 1], "cost_list": [1, 3]},
        {"query": "b", "source": "nq", "llm_name_list": names[::-1], "perf_list": [1, 1], "cost_list": [9, 5]},
    ]
    (tmp_path / "router_train_data_nq.json").write_text(json.dumps(records))
    rows, dropped = run(tmp_path)
    assert not dropped
    assert best(rows, "router-performance") == {"a": "maker/big", "b": "maker/tiny"}
    assert Counter(row["side"] for row in rows) == {"train": 3, "test": 3}  # one half of a pair: split by query
    assert sorted(rows[0]["candidates"])[0].startswith("maker/big, $2.0 in, $6.0 out per 1M tokens: knows")


@pytest.mark.parametrize(
    ("names", "sources"),
    [
        ("train.jsonl test.jsonl", ["train.jsonl=train test.jsonl=test"]),
        (
            "routing_data_train.jsonl routing_data_test.jsonl.gz",
            ["routing_data_train.jsonl=train routing_data_test.jsonl.gz=test"],
        ),
        ("x/train.jsonl y/test.jsonl", ["x/train.jsonl=None", "y/test.jsonl=None"]),
        ("train/a.jsonl test/a.jsonl", ["train/a.jsonl=train test/a.jsonl=test"]),
        ("latest.jsonl constraint.jsonl", ["constraint.jsonl=None latest.jsonl=None"]),
        ("routing_train.jsonl train.txt train.npz", ["routing_train.jsonl=None"]),
    ],
)
def test_which_files_belong_together(tmp_path, names, sources):
    for name in names.split():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines(tmp_path / name, both("a"))
        if name.endswith(".gz"):
            (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    found = list(found_by(find_llmrouter, sorted(p for p in tmp_path.rglob("*") if p.is_file()), tmp_path))
    units = [unit for source in found for unit in source.units]
    parts = [
        " ".join(f"{p.relative_to(tmp_path)}={side}" for p, side, _ in unit.arguments[0].args[0]) for unit in units
    ]
    assert sorted(parts) == sources
    assert len({unit.name for unit in units}) == len(units)
    assert all(unit.arguments[0]({}).queries for unit in units)


@pytest.mark.parametrize("content", ["", "{", "[", "[]", "[1]", "3", '{"user": 1}', "\x00\xff", '{"query": "a"}'])
def test_files_of_others_are_left_alone(tmp_path, content):
    (tmp_path / "train.json").write_text(content, encoding="latin-1")
    assert not list(
        found_by(find_llmrouter, [tmp_path / "train.json", tmp_path / "gone.json", tmp_path / "a.parquet"], tmp_path)
    )


def test_queries_alone_are_refused_unless_there_is_more(tmp_path):
    query = {"task_name": "mmlu", "query": "a", "ground_truth": "b", "metric": "em", "choices": None}
    file = lines(tmp_path / "default_query_train.jsonl", [query])
    (source,) = found_by(find_llmrouter, [file], tmp_path)
    with pytest.raises(UserError, match=r"default_query_train\.jsonl: queries only") as error:
        list(made(source))
    assert "default_routing_train_data.jsonl" in str(error.value)
    more = lines(tmp_path / "routing_data_train.jsonl", both("a"))
    assert [source.files for source in found_by(find_llmrouter, [file, more], tmp_path)] == [(more,)]


GOOD = json.dumps(called("a", "big", 1, (1, 1))).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"query": "cut of', 'row 2: not a JSON object, but \'{"query": "cut of\''),
        (GOOD + b'{"query": "\xff"}', "row 2: not a JSON object, but '{"),
        (GOOD + b"[1]", "row 2: not a JSON object, but '[1]'"),
        (GOOD + b'{"query": "a"}', "row 2: no field 'model_name'"),
        (GOOD + GOOD.replace(b'"big"', b'" "'), "row 2: an LLM is called ' '"),
        (GOOD + GOOD.replace(b'"big"', b"[7]"), "row 2: an LLM is called '[7]'"),
        (GOOD + GOOD.replace(b'"big"', b'"new"'), "row 2: 'new' has no input_price and output_price"),
        (GOOD.replace(b'"performance": 1', b'"performance": "good"'), "row 1: performance is 'good', not a number"),
        (GOOD.replace(b'"performance": 1', b'"performance": Infinity'), "row 1: performance is 'inf', not a number"),
        (GOOD.replace(b'"input_tokens": 1', b'"input_tokens": -1'), "row 1: input_tokens is '-1', below 0"),
        (GOOD, "1 LLM(s); ranking needs at least 2"),
        (b"{broken", "row 1: not a JSON object, but '{broken'"),
        (b"", "the file is empty"),
        (b'[{"question": "a", "scores": {"x": 1, "y": 2}}, {"quest', "not a whole JSON file"),
        (b'[{"question": "a", "scores": {"x": 1, "y": NaN}}, 3]', "row 2: not a JSON object, but '3'"),
        (b'[{"question": "a", "scores": {"x": 1, "y": 2}}, 3]', "row 2: not a JSON object, but '3'"),
        (b'[{"question": "a", "scores": [1]}]', "row 1: scores is '[1]', not an object {LLM: score}"),
        (b'[{"question": "a", "scores": {"x": 1}}, {"question": "a"}]', "row 2: no field 'scores'"),
        (
            b'[{"query": "a", "llm_name_list": ["x", "y"], "perf_list": [1]}]',
            "row 1: llm_name_list, perf_list and cost_l",
        ),
        (
            b'[{"query": "a", "llm_name_list": "xy", "perf_list": [1, 2]}]',
            "row 1: llm_name_list, perf_list and cost_list",
        ),
    ],
)
def test_what_is_refused(tmp_path, content, message):
    prices(tmp_path)
    (tmp_path / "routing_data.jsonl").write_bytes(content)
    with pytest.raises(UserError) as error:
        run(tmp_path)
    assert message in str(error.value)
    assert "routing_data.jsonl" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_byte_order_mark_and_half_a_surrogate_pair(tmp_path):
    records = [{"question": text, "scores": {"x": 1, "y": 0}} for text in ("a\ud800", "b")]
    (tmp_path / "train.json").write_text(json.dumps(records))
    assert {row["group"] for row in run(tmp_path / "train.json")[0]} == {"a?", "b"}
    (tmp_path / "train.json").write_bytes(b"\xef\xbb\xbf" + "\n".join(map(json.dumps, records)).encode())
    assert {row["group"] for row in run(tmp_path / "train.json")[0]} == {"a?", "b"}


@REAL
def test_real_scores():
    folder = DATA / "llmrouter"
    files = [folder / name for name in ("train.json", "test.json", "default_llm.json", "default_query_train.jsonl")]
    (source,) = found_by(find_llmrouter, files, folder)
    assert source.files == (*files[:2], files[2])
    dropped = nothing_dropped()
    rows = [row for table in made(source, dropped=dropped) for row in table.to_pylist()]
    prices = {name: entry["input_price"] for name, entry in json.loads(files[2].read_text()).items()}
    expected, tied = {}, 0
    for side, path in zip(("train", "test"), files, strict=False):
        for record in json.loads(path.read_text()):
            order = sorted((-score, prices[llm], llm) for llm, score in record["scores"].items())
            if order[0][:2] == order[1][:2]:
                tied += 1
            else:
                expected[side, record["question"].strip()] = order[0][2]
    found = {(row["side"], row["context"].removeprefix("Query: ").rsplit("\n", 1)[0]): row for row in rows}
    assert {key: row["candidate_ids"][row["relevance"].index(1)] for key, row in found.items()} == expected
    assert len(rows) == len(expected) == 3163 + 249
    assert tied == 434 + 22
    assert {name: dict(+counts) for name, counts in dropped.items()} == {
        "router-performance": {"queries: tied": tied},
        "router-cost": {"queries: no cost is known": 3597 + 271},
        "router-balance": {"queries: no cost is known": 3597 + 271},
    }
    assert all(len(row["candidates"]) == 9 and "per 1M tokens: " in row["candidates"][0] for row in rows)


@REAL
def test_real_lists_are_what_the_csv_of_the_same_data_holds(tmp_path):
    file = DATA / "llmrouter" / "router_train_data_nq.json"
    rows, dropped = run(file)
    assert dropped == {name: {"LLMs: not described": 2} for name in ROUTERS}  # in default_llm.json beside it
    assert Counter((row["dataset"], row["side"]) for row in rows) == {
        (dataset, side): n for dataset in ROUTERS for side, n in (("train", 298), ("test", 74))
    }
    table = pd.read_csv(DATA / "graphrouter_format" / "router_data_nq6.csv", keep_default_na=False)
    order = table.assign(worst=-table["effect"].round(9)).sort_values(["worst", "cost_raw"])
    positives = order.groupby(order["query"].str.strip().str.casefold())["llm"].first().to_dict()
    assert best(rows, "router-performance") == positives
    # Costs are scaled here by the training queries, there by all.
    train = {row["group"] for row in rows if row["side"] == "train"}
    low, high = (getattr(table[table["query"].str.casefold().isin(train)]["cost_raw"], f)() for f in ("min", "max"))
    cost = ((table["cost_raw"] - low) / (high - low)).clip(0, 1)
    order = table.assign(worst=(0.8 * cost - 0.2 * table["effect"]).round(9)).sort_values(["worst", "cost_raw"])
    positives = order.groupby(order["query"].str.strip().str.casefold())["llm"].first().to_dict()
    assert best(rows, "router-cost") == positives


@REAL
@pytest.mark.parametrize("name", ["default_query_train.jsonl", "default_query_test.jsonl"])
def test_real_queries_alone_are_refused(name):
    with pytest.raises(UserError, match=f"{name}: queries only"):
        run(DATA / "llmrouter" / name)
