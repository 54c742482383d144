"""GraphRouter's CSV: what is found, read, dropped and refused; and real files, counted with pandas apart from the code."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from data_prep.options import Options
from data_prep.scenarios.routing import ROUTERS, Query
from data_prep.sources.graphrouter import find_graphrouter, read_graphrouter
from iranker_verl.errors import UserError
from tests.data_prep import source_runs
from tests.data_prep.source_runs import sources

HEADER = ["task_id", "query", "ground_truth", "metric", "llm", "effect", "cost", "cost_raw"]
# effect, cost, cost_raw; the best: big by performance, tiny by cost, mid by balance (see test_routing)
LLMS = {"big": (1.0, 0.8, 0.004), "mid": (0.6, 0.1, 0.002), "tiny": (0.5, 0.008, 0.001)}
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "router" / "graphrouter_format"


def rows_of(query, outcomes=None, task="t"):
    return [[task, query, "", "em", llm, *values] for llm, values in (outcomes or LLMS).items()]


def write(path, rows, header=HEADER, **form):
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("w", newline="") as file:
        csv.writer(file, **form).writerows([header, *rows])
    return path


def run(path, options=None, datasets=ROUTERS, raw=None):
    """The rows of all tasks, and what was dropped, as preparation gets at them."""
    rows, dropped, source = source_runs.run(find_graphrouter, raw or path.parent, options, datasets)
    assert (source.format, source.datasets) == ("GraphRouter", ROUTERS)
    return rows, dropped


def positive(row):
    return row["candidate_ids"][row["relevance"].index(1.0)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "router_data.csv"


def test_every_llms_score(file):
    rows, _ = run(write(file, rows_of("who?")), Options(routing_relevance="score"), ("router-balance",))
    (row,) = rows
    found = dict(zip(row["candidate_ids"], row["relevance"], strict=True))
    assert found == {"big": -0.146, "mid": 0.004, "tiny": 0.0}  # .1, .25, .246 less the second


def test_tasks(file):
    rows, dropped = run(write(file, rows_of("what?\nA) x, y\nB) z") + rows_of("who?")))
    assert not dropped
    assert [(row["dataset"], positive(row)) for row in rows] == [
        (dataset, llm) for dataset, llm in zip(ROUTERS, ("big", "tiny", "mid"), strict=True) for _ in range(2)
    ]
    row = next(row for row in rows if row["dataset"] == "router-cost" and "what" in row["context"])
    assert row["context"] == "Query: what?\nA) x, y\nB) z\nPreference: quality 0.2, cost 0.8"
    assert row["group"] == "what? a) x, y b) z"
    assert row["scenario"] == "routing"
    assert sorted(row["candidates"]) == ["big, avg cost 0.004", "mid, avg cost 0.002", "tiny, avg cost 0.001"]
    assert Counter(row["side"] for row in rows) == {"train": 3, "test": 3}
    assert run(file, datasets=("router-cost",))[0] == [row for row in rows if row["dataset"] == "router-cost"]
    assert run(file, raw=file)[0] == rows


def test_every_reason_to_drop(file):
    missing_llm = rows_of("no tiny")[:2]
    no_number = rows_of("nan", LLMS | {"mid": ("NaN", 0.1, 0.1)})
    empty = rows_of("empty", LLMS | {"mid": (0.5, "", 0.1)})
    rows = missing_llm + no_number + empty + rows_of("x" * 11) + rows_of("good") * 2 + [[]] + rows_of(" fine ")
    rows += rows_of(" ")
    found, dropped = run(write(file, rows), Options(max_query_chars=10))
    assert sorted(row["group"] for row in found) == ["fine"] * 3 + ["good"] * 3
    reasons = {
        "queries: an LLM is missing": 1,
        "queries: a number is missing": 2,
        "queries: longer than 10 characters": 1,
        "rows: repeated query and LLM": 3,
        "lines: blank": 1,
        "rows: empty query": 3,
    }
    assert dropped == {name: reasons for name in ROUTERS}
    # All rows are accounted for: 3 a query, but 2 of the one that lacks an LLM.
    assert len(rows) == 3 * 2 + 2 + 3 * 2 + 3 + 3 + 1 + 3


def test_costs_that_are_not_there(file):
    with_raw = [[*row[:6], row[7]] for row in rows_of("a") + rows_of("b")]
    rows, dropped = run(write(file, with_raw, [*HEADER[:6], "cost_raw"]))
    assert not dropped
    # The raw costs .004, .002, .001 are 1, 1/3 and 0 of their range. .5e - .5c: 0, .1333, .25; .2e - .8c: tiny too
    assert {positive(row) for row in rows if row["dataset"] == "router-balance"} == {"tiny"}
    # A task with costs a thousand times higher has a scale of its own: on one for both, .004 would be next to nothing.
    dear = {llm: (e, c, 1000 * raw) for llm, (e, c, raw) in LLMS.items()}
    with_raw += [[*row[:6], row[7]] for row in rows_of("c", dear, task="u")]
    rows, _ = run(write(file, with_raw, [*HEADER[:6], "cost_raw"]), Options(split="test"))
    assert [positive(row) for row in rows if row["dataset"] == "router-balance"] == ["tiny"] * 3
    rows, dropped = run(write(file, [row[:7] for row in rows_of("a") + rows_of("b")], HEADER[:7]))
    assert sorted(rows[0]["candidates"]) == ["big, avg cost 0.8", "mid, avg cost 0.1", "tiny, avg cost 0.008"]
    assert not dropped
    rows, dropped = run(write(file, [[*row[:6], "", "nan"] for row in rows_of("a") + rows_of("b")]))
    assert {row["dataset"] for row in rows} == {"router-performance"}
    assert dropped == {name: {"queries: no cost is known": 2} for name in ROUTERS[1:]}


def test_descriptions_beside_and_in_the_repositorys_place(file, tmp_path):
    write(tmp_path / "data" / file.name, rows_of("a") + rows_of("b"))
    file = tmp_path / "data" / file.name
    described = {llm: {"feature": f"I am {llm}", "input_price": 0.2, "output_price": 0.3} for llm in LLMS}
    place = tmp_path / "configs" / "LLM_Descriptions.json"
    place.parent.mkdir()
    place.write_text(json.dumps(described))
    rows, _ = run(file, raw=tmp_path)
    assert sorted(rows[0]["candidates"])[0] == "big, $0.2 in, $0.3 out per 1M tokens: I am big"
    (source,) = sources(find_graphrouter, sorted(tmp_path.rglob("*.*")), tmp_path)
    assert source.files == (file, place)
    assert sorted(run(file)[0][0]["candidates"])[0] == "big, avg cost 0.004"
    beside = file.with_name("llm_descriptions.json")
    beside.write_text(json.dumps({llm: {"description": "mine", "price": 1} for llm in LLMS}))
    assert sorted(run(file, raw=file)[0][0]["candidates"])[0] == "big, 1: mine"
    (source,) = sources(find_graphrouter, [file], file)
    assert source.files == (file, beside)


@pytest.mark.parametrize(
    ("name", "text", "own"),
    [
        ("data.csv", b"task_id,query,llm,effect,cost\n", True),
        ("data.csv", "\ufefftask_id,query,llm,effect\n".encode(), True),
        ("data.csv", b"task_id;query;llm;effect;cost\r\n", True),  # and refused
        ("data.csv", "task_id,query,llm,effect\n".encode("utf-16"), True),  # and refused
        ("router_data.csv", b"task_id,query,llm\n", True),  # and refused
        ("router_data.csv", b"something else", False),
        ("data.tsv", b"task_id\tquery\tllm\teffect\n", False),
        ("data.csv", b"query,llm,effect\n", False),
        ("data.csv", b"user,item,time\n1,2,3\ntask_id,query,llm,effect\n", False),
        ("data.csv", b"\x00\xff\xfe", False),
        ("data.csv", b"", False),
    ],
)
def test_what_is_found(tmp_path, name, text, own):
    (tmp_path / name).write_bytes(text)
    assert len(list(sources(find_graphrouter, [tmp_path / name, tmp_path / "gone.csv"], tmp_path))) == own


def test_units_have_names_of_their_own(tmp_path):
    files = [write(tmp_path / place / "router_data.csv", rows_of("a")) for place in ("x", "y")]
    names = [unit.name for source in sources(find_graphrouter, files, tmp_path) for unit in source.units]
    assert names == ["graphrouter:x/router_data.csv", "graphrouter:y/router_data.csv"]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (rows_of("a"), ["task_id;query;llm;effect"], "no column 'task_id'; a GraphRouter CSV has task_id,query,llm"),
        ([], HEADER[:5], "no column 'effect'"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1.0]], HEADER, "row 5: 6 fields separated by commas, 8 expected"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", "good", 1, 1]], HEADER, "row 5: effect is 'good', not a number"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1, "$2", 1]], HEADER, r"row 5: cost is '\$2', not a number"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1, 1, "inf"]], HEADER, "row 5: cost_raw is 'inf', not a number"),
        ([*rows_of("a"), ["t", "b", "", "em", "big", 1, 1, -1]], HEADER, "row 5: cost_raw is '-1', below 0"),
        ([["t", "a", "", "em", " ", 1, 1, 1]], HEADER, "row 2: llm is empty"),
        (rows_of("a")[:1], HEADER, r"1 LLM\(s\); ranking needs at least 2"),
        ([], HEADER, r"0 LLM\(s\)"),
    ],
)
def test_what_is_refused(file, rows, header, message):
    with pytest.raises(UserError, match=message) as error:
        run(write(file, rows, header))
    assert "router_data.csv" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            ",".join(HEADER).encode() + b'\nt,"a query that never cl',
            " row 2: not well-formed CSV (unexpected end of data)",
        ),
    ],
)
def test_broken_files(file, content, message):
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        run(file)
    assert f"router_data.csv{message}" in str(error.value)
    file.unlink()
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        read_graphrouter(file)


def test_long_fields_odd_line_ends_and_a_byte_order_mark(file):
    long = "[" + " 0.123456789" * 50_000 + "]"  # an embedding: longer than the csv module's own limit
    rows = [[*row, long] for query in ("a\u2028b", 'say "hi"\r\nthere') for row in rows_of(query)]
    write(file, rows, [*HEADER, "query_embedding"])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    queries = [Query("a\u2028b", "t"), Query('say "hi"\r\nthere', "t")]
    assert list(read_graphrouter(file).queries) == queries
    packed = file.with_name("router_data.csv.gz")
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert list(read_graphrouter(packed).queries) == queries
    assert [source.files for source in sources(find_graphrouter, [packed], file.parent)] == [(packed,)]
    packed.write_bytes(packed.read_bytes()[:100])
    with pytest.raises(UserError, match=r"router_data\.csv\.gz: gzip data cut off"):
        read_graphrouter(packed)


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
@pytest.mark.parametrize(
    ("name", "positives"),
    [
        # How often an LLM is the best: by performance, cost, balance.
        ("router_data.csv", {"claude-v2": (7, 6, 7), "mistralai/mistral-7b-chat": (906, 929, 906)}),
        ("router_data_nq6.csv", {"google/gemma-2-27b-it": (133, 132, 139)}),
    ],
)
def test_real_data(name, positives):
    rows, dropped = run(DATA / name, raw=DATA / name)
    table = pd.read_csv(DATA / name, keep_default_na=False)
    llms = table["llm"].nunique()
    once = table.drop_duplicates(["task_id", "query", "llm"])
    repeated = len(table) - len(once)
    queries = once.groupby(["task_id", "query"]).ngroups
    assert (len(table), llms, queries, repeated) == {
        "router_data.csv": (14210, 10, 1419, 20),
        "router_data_nq6.csv": (2232, 6, 372, 0),
    }[name]
    assert dropped == ({name: {"rows: repeated query and LLM": repeated} for name in ROUTERS} if repeated else {})
    train = {row["group"] for row in rows if row["side"] == "train"}
    assert not train & {row["group"] for row in rows if row["side"] == "test"}
    key = once["query"].str.split().str.join(" ").str.casefold()
    average = once[key.isin(train)].groupby("llm")["cost_raw"].mean()
    for dataset, quality, thrift in zip(ROUTERS, (1, 0.2, 0.5), (0, 0.8, 0.5), strict=True):
        mine = [row for row in rows if row["dataset"] == dataset]
        assert llms * len(mine) + repeated == len(table)  # rows in = rows used + rows dropped
        score = (quality * once["effect"] - thrift * once["cost"]).round(9)
        order = once.assign(score=-score).sort_values(["score", "cost_raw"])
        best = order.groupby(["task_id", "query"])["llm"].first()
        counts = Counter(positive(row) for row in mine)
        assert counts == Counter(best)
        assert all(counts[llm] == numbers[ROUTERS.index(dataset)] for llm, numbers in positives.items())
        by_query = {(row["task_id"].split(":")[1], row["context"]): positive(row) for row in mine}
        say = "quality only" if not thrift else f"quality {quality}, cost {thrift}"
        for (task, query), llm in best.items():
            assert by_query[task, f"Query: {query.strip()}\nPreference: {say}"] == llm
        for row in mine[:20]:
            for llm, text in zip(row["candidate_ids"], row["candidates"], strict=True):
                shown, cost = text.split(", avg cost ")
                assert shown == llm and float(cost) == pytest.approx(average[llm], rel=0.006)
