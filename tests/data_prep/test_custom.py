"""A user's own files: the examples of the documentation, and what is done with files that are not like them."""

import csv
import gzip
import html
import json
import re
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.custom import passage, routing
from data_prep.discover import discover
from data_prep.options import Options
from data_prep.sources import custom as own
from data_prep.tasks import nothing_dropped
from iranker_verl.errors import UserError
from tests.data_prep.reading import events, interactions, texts
from tests.data_prep.source_runs import made, sources

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
EXAMPLES = dict(
    re.findall(r"^`([\w.]+)`\n\n```\n(.*?)```", (ROOT / "docs" / "own-data.md").read_text("utf-8"), re.DOTALL | re.M)
)


def write(folder, name, content):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write_lines(folder, name, *objects):
    return write(folder, name, "".join(json.dumps(one) + "\n" for one in objects))


def found(*paths, raw=None):
    return sources(own.find_own, paths, raw or paths[0].parent)


def passages(path, **options):
    """The drafts of a passage file, and what was dropped."""
    ((dataset,),) = (source.datasets for source in found(path))
    dropped = nothing_dropped()
    return list(passage.own_passage_drafts(path, Options(**options), [dataset], dropped)), +dropped[dataset]


def shape(draft):
    """What a draft asks, in short."""
    task = draft.task
    return task.id, task.context, [(c.id, c.text) for c in task.candidates], list(task.relevance), draft.side


# --------------------------------------------------------------------------------------------------- the documentation


def test_the_documentation_has_an_example_for_every_kind():
    assert list(EXAMPLES) == ["clicks.csv", "clicks.items.csv", "faq.csv", "help.jsonl", "router.csv"]
    assert all(example.count("\n") == 5 for example in EXAMPLES.values())


@pytest.mark.parametrize(
    ("name", "datasets"),
    [
        ("clicks.csv", ("clicks",)),
        ("faq.csv", ("faq",)),
        ("help.jsonl", ("help",)),
        ("router.csv", ("router-performance", "router-cost", "router-balance")),
    ],
)
def test_examples_are_found_by_nobody_else(tmp_path, name, datasets):
    path = write(tmp_path, name, EXAMPLES[name])
    assert [(source.format, source.datasets, source.files) for source in discover(path).sources] == [
        ("own", datasets, (path,))
    ]


def test_the_clicks_of_the_documentation(tmp_path):
    path = write(tmp_path, "clicks.csv", EXAMPLES["clicks.csv"])
    data, files = interactions(own.find_own, tmp_path)
    assert (data.dataset, files) == ("clicks", ["clicks.csv"])
    expected = [("ann", "m1", 978300760.0), ("ann", "m2", 978302109.0), ("bob", "m3", 978301968.0)]
    assert events(data) == ([*expected, ("bob", "m1", 978300275.0)], {})
    told = [("m1", "Toy Story (1995), Animation, Comedy"), ("m2", "Jumanji (1995), Adventure")]
    told.append(("m3", "Fish Called Wanda, A (1988), Comedy"))
    assert texts(data) == (told, {})
    write(tmp_path, "clicks.items.csv", EXAMPLES["clicks.items.csv"])
    data, files = interactions(own.find_own, tmp_path)
    assert (data.events, files) == ((path,), ["clicks.csv", "clicks.items.csv"])
    assert texts(data) == ([*told, ("m4", "Heat")], {})


def test_the_questions_of_the_documentation(tmp_path):
    drafts, dropped = passages(write(tmp_path, "faq.csv", EXAMPLES["faq.csv"]))
    candidates = [
        "A flea can live up to a year.",
        "Fleas feed on blood.",
        "Eggs hatch in a week, adults live for months.",
    ]
    assert [shape(draft) for draft in drafts] == [
        ("faq:2", "how long do fleas live", list(zip("012", candidates, strict=True)), [2.0, 0.0, 1.0], None)
    ]
    assert (drafts[0].task.scenario, drafts[0].task.dataset, drafts[0].group) == (
        "passage",
        "faq",
        drafts[0].task.context,
    )
    assert dropped == {"queries: fewer than 2 candidates": 1}
    drafts, dropped = passages(write(tmp_path, "help.jsonl", EXAMPLES["help.jsonl"]))
    assert [draft.side for draft in drafts] == ["train"] * 3 + ["test"] * 2
    assert shape(drafts[0])[2] == [("a", candidates[0]), ("b", candidates[1])]
    assert [c.id for c in drafts[1].task.candidates] == ["0", "1"]
    assert not dropped


def test_the_results_of_the_documentation(tmp_path):
    path = write(tmp_path, "router.csv", EXAMPLES["router.csv"])
    dropped = nothing_dropped()
    wanted = ("router-performance", "router-cost")
    drafts = list(routing.own_routing_drafts(path, Options(split="test"), wanted, dropped))
    # Equally good on the sum, so the cheap one; only the large one can prove.
    assert [(d.task.dataset, d.group, d.task.candidates[d.task.target].id) for d in drafts if "2" in d.group] == [
        ("router-performance", "what is 2 + 3?", "small-3b"),
        ("router-cost", "what is 2 + 3?", "small-3b"),
    ]
    (proof,) = (d.task for d in drafts if "prove" in d.group and d.task.dataset == "router-performance")
    assert sorted((c.text, r) for c, r in zip(proof.candidates, proof.relevance, strict=True)) == [
        ("large-70b, $0.90 per 1M tokens: Large and careful.", 1.0),
        ("small-3b, $0.06 per 1M tokens: Small and fast.", 0.0),
    ]
    assert {name: +counts for name, counts in dropped.items()} == {name: {} for name in wanted}


# -------------------------------------------------------------------------------------------------- whose file is it?


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("user_id,item_id,title", "no column timestamp; a recommendation file has user_id,item_id,timestamp"),
        ("item_id,timestamp", "no column user_id"),
        ("query,passage", "no column relevance; a passage file has query,passage,relevance"),
        ("passage,relevance", "no column query"),
        ("query,llm,effect", "no column cost; a routing file has query,llm,effect,cost"),
        (
            "user_id;item_id;timestamp",
            "its columns are separated by semicolons; write user_id,item_id,timestamp, separated",
        ),
        ("query\tpassage\trelevance", "its columns are separated by tabs; write query,passage,relevance"),
        ("user_id,item_id,timestamp", r"no titles; add a column title, or a file x.items.csv with item_id,title"),
    ],
)
def test_nearly_right_columns(tmp_path, columns, message):
    with pytest.raises(UserError, match=f"x.csv: {message}"):
        found(write(tmp_path, "x.csv", columns + "\n1,2,3,4\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "task_id,query,ground_truth,metric,llm,effect,cost,cost_raw\n"),  # GraphRouter
        ("x.csv", "task_id,query,llm,effect\n"),
        ("x.csv", "sample_id,prompt,eval_name,gpt-4,gpt-4|total_cost\n"),  # RouterBench
        ("x.csv", "user_id,parent_asin,rating,timestamp\n"),  # Amazon
        ("x.csv", "B000000001,A2,5.0,20\n"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n"),  # MovieLens
        ("tags.csv", "userId,movieId,tag,timestamp\n"),
        ("genome-scores.csv", "movieId,tagId,relevance\n"),
        ("x.csv", "uid,iid\n1,2\n"),
        ("x.csv", "query,candidates\nq,a b c\n"),
        ("x.csv", ""),
        ("x.csv", "\n\n"),
        ("x.csv", '"'),
        ("x.csv", b"\xff\xfeu\0s\0e\0r\0_\0i\0d\0"),
        ("x.csv.gz", gzip.compress(b"user_id,item_id,timestamp\n" * 9, mtime=0)[:12]),
        ("x.items.csv", "item_id,title\n"),
        (
            "x.json",
            '[{"query": {"qid": 1, "text": "q"}, "candidates": [{"docid": 1, "score": 2, "doc": {}}]}]',
        ),  # rank_llm
        ("x.jsonl", '{"task_name": "t", "query": "q", "ground_truth": "a", "metric": "em"}\n'),  # LLMRouter
        ("x.jsonl", '{"problem": "p", "gt": "g", "candidates": ["a"], "task_name": "t"}\n'),  # Ranking-bench
        ("x.jsonl", '{"query": "q", "passages": [{"passage_text": "p", "is_selected": 1}]}\n'),  # MS MARCO
        ("x.jsonl", '{"user_id": "u", "parent_asin": "a", "asin": "a", "timestamp": 1}\n'),  # Amazon
        ("x.jsonl", "[1]\n"),
        ("x.jsonl", "{"),
    ],
)
def test_what_is_somebody_else_s(tmp_path, name, content):
    assert not found(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "columns", "datasets"),
    [
        ("My Clicks (2).csv.gz", "user_id,item_id,timestamp,title", ("my-clicks-2",)),
        ("rec-game.csv", "item_id,title,user_id,timestamp", ("rec-game",)),
        ("rec-music/x.csv", "user_id,item_id,timestamp,title", ("rec-music",)),
        ("passage-5.csv", '"relevance","query","passage"', ("passage-5",)),
        ("rec-music/x.csv", "query,passage,relevance", ("x",)),
        ("ours.csv", "query,llm,cost,effect", ("ours-performance", "ours-cost", "ours-balance")),
        ("router-cost.csv", "query,llm,cost,effect", ("router-cost",)),
    ],
)
def test_what_a_dataset_is_called(tmp_path, name, columns, datasets):
    content = columns.encode() + b"\n1,2,3,4\n"
    path = write(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)
    assert [source.datasets for source in found(path, raw=tmp_path)] == [datasets]


ROWS = {
    "recommendation": [{"user_id": f"u{n}", "item_id": f"i{n}", "timestamp": n, "title": f"T{n}"} for n in range(4)],
    "passage": [{"query": f"q{n}", "passage": f"p{n}{g}", "relevance": g} for n in range(4) for g in (0, 1)],
    "routing": [
        {"query": f"q{n}", "llm": llm, "effect": float(llm == "a"), "cost": 1} for n in range(4) for llm in ("a", "b")
    ],
}


def as_csv(rows):
    return "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]) + "\n"


def as_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize(
    ("suffix", "form"),
    [
        (".csv", as_csv),
        (".CSV", as_csv),
        (".txt", as_csv),
        (".dat", as_csv),
        ("", as_csv),
        (".jsonl", as_lines),
        (".JSONL", as_lines),
        (".ndjson", as_lines),
        (".NDJSON", as_lines),
        (".json", as_lines),
        (".JSON", json.dumps),
        (".json", lambda rows: json.dumps(rows, indent=2)),
        (".Json", lambda rows: "\n".join(json.dumps(row, indent=1) for row in rows)),
    ],
)
@pytest.mark.parametrize("scenario", ROWS)
def test_a_table_of_ones_own_is_read_whatever_its_suffix(tmp_path, scenario, suffix, form, packed):
    content = form(ROWS[scenario]).encode()
    (tmp_path / f"ours{suffix}{packed}").write_bytes(gzip.compress(content) if packed else content)
    (source,) = found(tmp_path / f"ours{suffix}{packed}")
    assert source.datasets[0] == ("ours-performance" if scenario == "routing" else "ours")
    options = Options(history=1, candidates=2)
    if scenario == "recommendation":  # a row a user makes no task; they are read all the same
        (data,) = source.units.args
        assert sum(batch.num_rows for batch in data.read_events(data.events[0], Counter())) == 4
        assert len(list(data.read_items(data.items[0], Counter()))) == 4
    else:
        assert sum(part.num_rows for part in made(source, options)) == 4 * len(source.datasets)


@pytest.mark.parametrize("scenario", ROWS)
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", None, "columns of a {} file of your own; save it as CSV or JSON lines, x.csv"),
        ("x.json", "columns", r"one JSON object of columns, as pandas writes it; write an object a row \(orient="),
        ("x.xlsx", b"PK\x03\x04", "a spreadsheet; save it as CSV"),
        ("x.csv.zip", b"PK\x03\x04", "packed as zip; unpack it"),
    ],
)
def test_a_table_of_ones_own_that_is_not_read_says_what_to_do(tmp_path, scenario, name, content, message):
    rows = ROWS[scenario]
    if content is None:
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    elif content == "columns":
        columns = {column: {str(n): row[column] for n, row in enumerate(rows)} for column in rows[0]}
        (tmp_path / name).write_text(json.dumps(columns))
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message.format(scenario)):
        discover(tmp_path)


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".txt", ".tsv", ".csv.gz"])
@pytest.mark.parametrize(("separator", "called"), [(";", "semicolons"), ("\t", "tabs"), ("|", r"'\|'")])
@pytest.mark.parametrize("scenario", ROWS)
def test_another_separator_is_named(tmp_path, scenario, suffix, separator, called):
    content = as_csv(ROWS[scenario]).replace(",", separator).encode()
    (tmp_path / f"x{suffix}").write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    columns = ",".join([*ROWS[scenario][0]][:3])
    with pytest.raises(UserError, match=f"its columns are separated by {called}; write {columns}.*separated by commas"):
        discover(tmp_path)


def test_a_name_that_is_taken(tmp_path):
    with pytest.raises(
        UserError, match=r"rec-game.csv: rec-game is a dataset for recommendation, and its columns are for"
    ):
        found(write(tmp_path, "rec-game.csv", "query,passage,relevance\n"))
    with pytest.raises(UserError, match=r"---.csv: its name has no letter or digit"):
        found(write(tmp_path, "---.csv", "query,passage,relevance\n"))


# ------------------------------------------------------------------------------------------------------ recommendation


def test_interactions_as_json_lines(tmp_path):
    rows = [
        {"user_id": 7, "item_id": "a", "timestamp": 20, "more": [1]},
        {"user_id": "8", "item_id": 1, "timestamp": 1.5},
    ]
    write_lines(tmp_path, "x.jsonl", *rows)
    items = [{"item_id": "a", "title": "A\u2028B", "year": 1999, "genres": ["X", "Y|Z"]}, {"item_id": 1, "title": None}]
    write_lines(tmp_path, "x.items.jsonl", *items)
    data, files = interactions(own.find_own, tmp_path)
    assert files == ["x.jsonl", "x.items.jsonl"]
    assert events(data) == ([("7", "a", 20.0), ("8", "1", 1.5)], {})
    assert texts(data) == ([("a", "A B (1999), X, Y|Z"), ("1", "")], {})


def test_titles_in_the_events_tell_once(tmp_path):
    rows = ["u,a,1,", "u,b,2,B", "v,a,3,A", "v,b,4,B", "", "w,a,5,Not A", "w,a,6, ", "w,c,7,"]
    write(tmp_path, "x.csv", "user_id,item_id,timestamp,title\n" + "\n".join(rows))
    data, _ = interactions(own.find_own, tmp_path)
    assert texts(data) == ([("b", "B"), ("a", "A")], {"items: told of in another way by a later row": 1})
    assert len(events(data)[0]) == 7
    assert events(data)[1] == {"lines: blank": 1}


def test_items_twice(tmp_path):
    write(tmp_path, "x.csv", "user_id,item_id,timestamp\n1,2,3\n")
    for end in ("csv", "jsonl"):
        write(tmp_path, f"x.items.{end}", "item_id,title\n")
    with pytest.raises(UserError, match=r"x.csv: its items occur twice, as x.items.csv and as x.items.jsonl"):
        found(tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "u,a,1,T\nu,a,1\n", "row 3: 3 fields separated by commas, 4 expected"),
        ("x.csv", "u,a,1,T\n,a,1,T\n", "row 3: the user is empty"),
        ("x.csv", "u,a,yesterday,T\n", "row 2: the time is 'yesterday', not a number"),
        ("x.csv", 'u,a,1,"T\n', r"row 2: not well-formed CSV \(unexpected end of data\)"),
        ("x.csv", "u,a,1,Caf\xe9\n".encode("latin-1"), "row 2: byte 10 of the row is not utf-8 text"),
        ("x.jsonl", '{"user_id": null, "item_id": 1, "timestamp": 1}', "row 2: the user is empty"),
        ("x.jsonl", '{"user_id": 1, "timestamp": 1}', "row 2: no item_id; it has user_id, timestamp"),
        ("x.jsonl", '{"user_id": 1, "item_id": 1, "timestamp": true}', "row 2: the time is 'True', not a number"),
        ("x.jsonl", '{"user_id": 1, "item_id": 1, "timestamp"', "row 2: not a JSON object"),
    ],
)
def test_bad_interactions(tmp_path, name, content, message):
    content = content if isinstance(content, bytes) else content.encode()
    first = b"user_id,item_id,timestamp,title\n"
    if name == "x.jsonl":
        first = b'{"user_id": 1, "item_id": 1, "timestamp": 1, "title": "T"}\n'
    write(tmp_path, name, first + content)
    data, _ = interactions(own.find_own, tmp_path)
    with pytest.raises(UserError, match=f"{name} {message}"):
        events(data)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"item_id": "", "title": "T"}, "row 1: the item is empty"),
        ({"item_id": 1, "title": ["T"]}, r"row 1: title is \"\['T'\]\", not a text"),
        ({"item_id": 1, "title": "T", "genres": [1]}, r"row 1: genres is '\[1\]', not a list of texts"),
        ({"item_id": 1, "title": "T", "year": 1999.5}, "row 1: year is '1999.5', not a text"),
        ({"item_id": 1}, "row 1: no title; it has item_id"),
    ],
)
def test_bad_items(tmp_path, item, message):
    write(tmp_path, "x.csv", "user_id,item_id,timestamp\n1,2,3\n")
    write_lines(tmp_path, "x.items.jsonl", item)
    data, _ = interactions(own.find_own, tmp_path)
    with pytest.raises(UserError, match="x.items.jsonl " + message):
        texts(data)


# ------------------------------------------------------------------------------------------------------------ passages


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=30
    ),
    st.booleans(),
)
def test_rows_of_a_query_may_stand_anywhere(tmp_path, rows, with_ids):
    """Against a grouping in memory: same queries with the same passages, whatever the order of the rows."""
    relevance = {}
    rows = [(query, text, relevance.setdefault((query, text), grade)) for query, text, grade in rows]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["query", "passage", "relevance"] + ["query_id", "passage_id"] * with_ids)
        for query, text, grade in rows:
            table.writerow([f"query\n{query}", f"text, {text}", grade] + [f"q{query}", f"p{text}"] * with_ids)
    drafts, dropped = passages(tmp_path / "x.csv")
    expected, reasons = {}, Counter()
    for query in {query for query, *_ in rows}:
        own_rows = [(text, grade) for q, text, grade in rows if q == query]
        if with_ids:
            reasons["rows: repeated passage"] += len(own_rows) - len(set(own_rows))
            own_rows = list(dict.fromkeys(own_rows))
        grades = [grade for _, grade in own_rows]
        if len(own_rows) < 2:
            reasons["queries: fewer than 2 candidates"] += 1
        elif len(set(grades)) == 1:
            reasons["queries: all candidates equally relevant"] += 1
        else:
            expected[f"query {query}"] = ([f"text, {text}" for text, _ in own_rows], grades)
    assert {d.task.context: ([c.text for c in d.task.candidates], list(d.task.relevance)) for d in drafts} == expected
    assert dropped == +reasons
    assert len({draft.task.id for draft in drafts}) == len(drafts) == len(expected)


def test_a_query_is_let_go_with_its_last_row(tmp_path):
    rows = [("a", 0), ("b", 0), ("a", 1), ("c", 0), ("c", 1), ("b", 1)]
    content = "query,passage,relevance\n" + "".join(f"{query},p{grade},{grade}\n" for query, grade in rows)
    drafts = passage.own_passage_drafts(write(tmp_path, "x.csv", content), Options(), ["x"], nothing_dropped())
    assert [draft.task.id for draft in drafts] == ["x:2", "x:5", "x:3"]


def test_passages_of_one_text_stay_two_with_the_best_grade(tmp_path):
    content = "query,passage,relevance,passage_id\nq,same,1,a\nq,same,0,b\nq,Q,0,c\n"
    (draft,), dropped = passages(write(tmp_path, "x.csv", content))
    assert [c.id for c in draft.task.candidates] == ["a", "b", "c"]
    assert draft.task.relevance == (1, 1, 0)
    assert dropped == {"passages: graded as an equal one": 1}


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ("q,a,1\nq,b,0", {"passages": 3}, "queries: not 3 passages"),
        ("q,aaaa,1\nq,b,0", {"max_chars": 4}, "queries: passages longer than 4 characters"),
        ("q,a,1\nq, ,0", {}, "queries: an empty passage"),
        ("q,a,0\nq,b,0", {}, "queries: all candidates equally relevant"),
        ("q,a,1", {}, "queries: fewer than 2 candidates"),
    ],
)
def test_queries_that_make_no_task(tmp_path, rows, options, reason):
    path = write(tmp_path, "x.csv", f"query,passage,relevance\n{rows}\nr,a,1\nr,b,0\n")
    drafts, dropped = passages(path, **options)
    assert dropped[reason] == (2 if "passages" in options else 1)
    assert len(drafts) == ("passages" not in options)


def test_a_dataset_of_the_paper_keeps_to_its_rules(tmp_path):
    rows = [("five", i, int(i == 2)) for i in range(5)] + [("two", i, i) for i in range(2)]
    rows += [("graded", i, i) for i in range(5)]
    content = "query,passage,relevance\n" + "".join(f"{query},text {i},{grade}\n" for query, i, grade in rows)
    drafts, dropped = passages(write(tmp_path, "passage-5.csv", content))
    assert [draft.task.context for draft in drafts] == ["five"]
    assert dropped == {"queries: not 5 passages": 1, "queries: not exactly one selected passage": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (",a,1,,,", "row 2: query is empty"),
        ("q,a,high,,,", "row 2: relevance is 'high', not a number"),
        ("q,a,-1,,,", "row 2: relevance is -1; it has to be 0 or more"),
        ("q,a,1,,,dev", "row 2: split is 'dev'; write train or test"),
        ("q,a,1,,,train\nq,b,0,,,", "row 3: split is '', but 'train' in row 2; write train or test in every row"),
        ("q,a,1,,,train\nq,b,0,,,test", "row 3: another split than in row 2, which is of the same query"),
        ("q,a,1,0,,\nr,b,0,0,,", "row 3: another query than in row 2, which is of the same query"),
        ("q,a,1,7,,\nr,b,0,7,,", "row 3: another query than in row 2, which is of the same query"),
        ("q,a,1,,x,\nq,b,1,,x,", "row 3: passage 'x' occurred before for this query, with another text or relevance"),
        ("q,a,1,,x,\nq,a,0,,x,", "row 3: passage 'x' occurred before"),
        ("q,a,1,,x", "row 2: 5 fields separated by commas, 6 expected"),
    ],
)
def test_bad_passages(tmp_path, rows, message):
    path = write(tmp_path, "x.csv", f"query,passage,relevance,query_id,passage_id,split\n{rows}\n")
    with pytest.raises(UserError, match="x.csv " + message) as error:
        passages(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "candidates": "a"}, "row 2: candidates is 'a', not a list"),
        ({"query": "q", "candidates": ["a", "b"]}, "row 2: a candidate has no relevance: 'a'"),
        ({"query": "q"}, "row 2: no candidates; it has query"),
        ({"query": 1.5, "candidates": []}, "row 2: query is '1.5', not a text"),
        ({"query": "q", "candidates": [{"text": "a"}]}, "row 2: a candidate has no relevance: .*'a'"),
        ({"query": "q", "candidates": [{"text": ["a"], "relevance": 1}]}, "row 2: passage is .*, not a text"),
        ({"query": "q", "candidates": [{"text": "a", "relevance": True}]}, "row 2: relevance is 'True', not a number"),
        (
            {"query": "q", "candidates": [{"text": "a", "relevance": 1, "id": 1.5}]},
            "row 2: the passage id is '1.5', not",
        ),
    ],
)
def test_bad_candidates(tmp_path, row, message):
    path = write_lines(tmp_path, "x.jsonl", {"query": "p", "candidates": []}, row)
    with pytest.raises(UserError, match="x.jsonl " + message):
        passages(path)


def test_queries_as_json_lines(tmp_path):
    one = {"query": "What\nis\u2028it? ", "query_id": 7, "candidates": [{"text": "a", "relevance": 0.5, "id": 3}]}
    two = {
        "query": "x",
        "candidates": [{"text": "a", "relevance": 0}, {"text": "b \ud83d", "relevance": 1, "id": None}],
    }
    one["candidates"].append({"text": "c", "relevance": 0})
    drafts, dropped = passages(write_lines(tmp_path, "x.jsonl", one, {}, two) and _without_empty(tmp_path / "x.jsonl"))
    assert [shape(draft) for draft in drafts] == [
        ("x:7", "What is it?", [("3", "a"), ("1", "c")], [0.5, 0.0], None),
        ("x:3", "x", [("0", "a"), ("1", "b ?")], [0.0, 1.0], None),
    ]
    assert drafts[0].group == "what is it?"
    assert dropped == {"lines: blank": 1}


def _without_empty(path):
    path.write_text(path.read_text().replace("{}\n", "\n"))
    return path


# ------------------------------------------------------------------------------------------------------------- routing


def test_results_under_the_name_of_the_file(tmp_path):
    rows = [
        {"query": f"q{i}", "llm": llm, "effect": e, "cost": c}
        for i in range(4)
        for llm, e, c in (("A", 9, 5), ("B", 3, 1))
    ]
    path = write_lines(tmp_path, "ours.jsonl", *rows, {"query": "q9", "llm": "A", "effect": None, "cost": 1})
    dropped = nothing_dropped()
    drafts = list(routing.own_routing_drafts(path, Options(), ("ours-cost", "ours-performance"), dropped))
    assert Counter((d.task.dataset, d.task.candidates[d.task.target].id) for d in drafts) == {
        ("ours-performance", "A"): 4,
        ("ours-cost", "B"): 4,
    }
    assert all(d.task.id.startswith(d.task.dataset + ":") and d.task.scenario == "routing" for d in drafts)
    assert {d.side for d in drafts} == {"train", "test"}
    assert {name: +counts for name, counts in dropped.items()} == {
        "ours-performance": {"queries: an LLM is missing": 1},
        "ours-cost": {"queries: an LLM is missing": 1},
    }
    assert {c.text for d in drafts for c in d.task.candidates} == {"A, avg cost 5", "B, avg cost 1"}


def test_the_split_of_the_file(tmp_path):
    rows = "".join(f"q{i},{llm},{i % 2},1,{side}\n" for i, side in ((0, "train"), (1, "test")) for llm in "AB")
    path = write(
        tmp_path, "x.csv", "query,llm,effect,cost,split\n" + rows.replace("A,1", "A,0.5").replace("B,0", "B,0.5")
    )
    drafts = routing.own_routing_drafts(path, Options(), ("x-performance",), nothing_dropped())
    assert {(draft.group, draft.side) for draft in drafts} == {("q0", "train"), ("q1", "test")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (" ,A,1,1,,,", "row 2: query is empty"),
        ("q,,1,1,,,", "row 2: llm is empty"),
        ("q,A,good,1,,,", "row 2: effect is 'good', not a number"),
        ("q,A,1,-1,,,", "row 2: cost is '-1', below 0"),
        ("q,A,1,1e308,,,", r"row 2: cost is 1e\+308; it has to be below 1e\+100"),
        ("q,A,-1e308,1,,,", r"row 2: effect is -1e\+308; it has to be below 1e\+100"),
        ("q,A,1,1,x,,\nr,A,1,1,y,,", "row 3: 'A' is described as 'y', and before as 'x'"),
        ("q,A,1,1,x,$1,\nr,A,1,1,,$2,", r"row 3: 'A' is described as '\$2', and before as '\$1'"),
        ("q,A,1,1,,,train\nq,B,1,1,,,test", "row 3: the query 'q' is on both sides of the split"),
        ("q,A,1,1,,,train\nr,B,1,1,,,", "row 3: split is ''"),
        ("q,A,1,1,,,\nq,a,1,1,,,", "an LLM is called"),
        ("q,A,1,1,,,", "1 LLM"),
    ],
)
def test_bad_results(tmp_path, rows, message):
    path = write(tmp_path, "x.csv", f"query,llm,effect,cost,description,price,split\n{rows}\n")
    with pytest.raises(UserError, match=rf"x.csv:? {message}"):
        list(routing.own_routing_drafts(path, Options(), ("x-performance",), nothing_dropped()))


# ----------------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_real_interactions_under_our_columns(tmp_path):
    """A sample of MovieLens-1M with titles, whose columns have other names; the file itself is left alone."""
    given = DATA / "rec" / "ml1m_sample" / "interactions.csv"
    assert not found(given)
    content = given.read_text("utf-8").replace("uid,iid,", "user_id,item_id,", 1)
    write(tmp_path, "sample.csv", content)
    data, _ = interactions(own.find_own, tmp_path)
    with given.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert events(data) == ([(row["uid"], row["iid"], float(row["timestamp"])) for row in rows], {})
    told, dropped = texts(data)
    assert told == list({row["iid"]: (row["iid"], html.unescape(row["title"])) for row in rows}.values())
    assert not dropped


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_of_the_real_files_none_is_taken_for_one_s_own():
    files = sorted(path for path in DATA.rglob("*") if path.is_file())
    assert not found(*files, raw=DATA)
