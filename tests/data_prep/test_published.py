"""Published data as published: the quirks that the formats' own documentation and loaders mention, one by one."""

import gzip
import json
import re
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.discover import discover
from data_prep.options import Options
from data_prep.readers import events
from data_prep.readers.events import Layout
from data_prep.scenarios.interactions import item_text
from data_prep.sources.amazon import read_items
from data_prep.work import Work
from iranker_verl.errors import UserError
from tests.data_prep.reading import exact
from tests.data_prep.source_runs import made


def table(separator, *rows):
    return "".join(separator.join(map(str, row)) + "\n" for row in rows)


def jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# Three users touch six items, in turn: with a history of two and two candidates all three make a task.
EVENTS = [(u, i, 1_000_000_000 + 10 * n + i) for n, u in enumerate("abc") for i in range(1 + n, 5 + n)]
ML_CSV = {
    "ratings.csv": table(",", ("userId", "movieId", "rating", "timestamp"), *((u, i, 3.5, t) for u, i, t in EVENTS)),
    "movies.csv": "movieId,title,genres\n" + table(",", *((i, f'"T{i}, The (1999)"', "War") for i in range(1, 8))),
}
ML_DAT = {
    "ratings.dat": table("::", *((u, i, 5, t) for u, i, t in EVENTS)),
    "movies.dat": table("::", *((i, f"T{i} (1999)", "War|Drama") for i in range(1, 8))),
}
FLAGS = "|0" * 18 + "|1"
ML_100K = {
    "u.data": table("\t", *((u, i, 5, t) for u, i, t in EVENTS)),
    "u.item": "".join(f"{i}|T{i} (1999)|01-Jan-1999||http://x{FLAGS}\n" for i in range(1, 8)),
}
ASINS = [f"B00000000{i}" for i in range(8)]
REVIEWS = jsonl(*({"reviewerID": u, "asin": ASINS[i], "unixReviewTime": t} for u, i, t in EVENTS))
META = [{"asin": ASINS[i], "title": f"T{i}"} for i in range(1, 8)]
AMAZON = {"Video_Games.json": REVIEWS, "meta_Video_Games.json": jsonl(*META)}
AMAZON_2023 = {
    "Video_Games.csv": table(",", ("user_id", "parent_asin", "rating", "timestamp"), *((u, ASINS[i], 5.0, t * 1000) for u, i, t in EVENTS)),
    "meta_Video_Games.jsonl": jsonl(*({"parent_asin": m["asin"], "title": m["title"], "price": None} for m in META)),
}  # fmt: skip
RECBOLE = {
    "ml.inter": table("\t", ("user_id:token", "item_id:token", "rating:float", "timestamp:float"), *((u, i, 5, t) for u, i, t in EVENTS)),
    "ml.item": table("\t", ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"), *((i, f"T{i} x", 1999, "War Drama") for i in range(1, 8))),
}  # fmt: skip
ROUTER = [("t", f"q{n}", "a,b", llm, float(llm == "x"), 0.1) for n in range(3) for llm in "xy"]
GRAPH = {
    "router_data.csv": "task_id,query,ground_truth,llm,effect,cost\n"
    + table(",", *((t, f'"{q}\n, ""so"""', '"a,b"', *rest) for t, q, _, *rest in ROUTER))
}
LLMROUTER = {
    "routing_data.jsonl": jsonl(
        *(
            {"query": f"{q}\u2028\x85x", "model_name": llm, "performance": e, "response": "\u2028"}
            for _, q, _, llm, e, _ in ROUTER
        )
    )
}
BENCH = {
    "sample_id": "mmlu.1",
    "prompt": "['one', 'two']",
    "eval_name": "mmlu",
    "x": 1.0,
    "x|model_response": "A",
    "x|total_cost": 0.1,
    "y": 0.0,
    "y|total_cost": 0.2,
    "oracle_model_to_route_to": "x",
}
PASSAGES = [f"p{j}" for j in range(5)]


def marco(n, flags=(0, 1, 0, 0, 0), **more):
    passages = {"is_selected": [*flags], "passage_text": [f"p{n} {p}" for p in PASSAGES], "url": ["u"] * 5}
    return {"query": f"q{n} {'abcdef'[n % 6] * 4}", "query_id": n, "passages": passages, "answers": [], **more}


def objects(row):
    passages = row["passages"]
    cells = zip(passages["is_selected"], passages["passage_text"], strict=True)
    return row | {"passages": [{"is_selected": flag, "passage_text": text} for flag, text in cells]}


def columns(*rows):
    return json.dumps({key: {str(n): row[key] for n, row in enumerate(rows)} for key in rows[0]})


def gzipped(files, *names):
    return {f"{name}.gz": gzip.compress(text.encode()) for name, text in files.items() if not names or name in names}


def trec(qrels, queries):
    year = re.search(r"20(\d\d)", qrels)[1]
    judged, run, topics, texts = TREC.values()
    return {qrels: judged, f"run.dl{year}.txt": run, queries: topics, "collection.tsv": texts}


NO_LABEL = (-1,) * 5
TREC = {
    "qrels.dl19-passage.txt": "1 0 d0 3\n1 0 d1 0\n1 0 d9 2\n",
    "run.dl19.txt": "1 Q0 d0 1 9.5 Anserini\n1\tQ0\td1\t2\t9.25\tAnserini\n",
    "msmarco-test2019-queries.tsv": "1\twhat\n",
    "collection.tsv": "d0\tzero\nd1\tone\n",
}
BEIR = {
    "scifact/qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\td0\t1\n1\td1\t0\n",
    "scifact/qrels/train.tsv": "query-id\tcorpus-id\tscore\n2\td0\t1\n",
    "scifact/bm25.trec": TREC["run.dl19.txt"],
    "scifact/queries.jsonl": jsonl({"_id": "1", "text": "what", "metadata": {}}, {"_id": "2", "text": "who"}),
    "scifact/corpus.jsonl": jsonl(
        {"_id": "d0", "title": "T", "text": "zero"}, {"_id": "d1", "title": "", "text": "one"}
    ),
}
WIKI = "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel\n"


def wiki(*sentences):
    return WIKI + "".join(f"Q1\twhy\tD1\tt\tD1-{n}\t{text}\t{label}\n" for n, (text, label) in enumerate(sentences))


QUIRKS = [
    ("MovieLens 100K: latin-1 titles", ML_100K | {"u.item": ML_100K["u.item"].replace("T1", "Les Misérables").encode("latin-1")}, 3),
    ("MovieLens 100K: no release date, 'unknown'", ML_100K | {"u.item": ML_100K["u.item"].replace("T1 (1999)|01-Jan-1999", "unknown|")}, 3),
    ("MovieLens 100K: five folds beside it", ML_100K | {"u1.base": ML_100K["u.data"], "ua.test": ML_100K["u.data"], "u.genre": "unknown|0\n"}, 3),
    ("MovieLens 100K: a blank line at the end", ML_100K | {"u.item": ML_100K["u.item"] + "\n"}, 3),
    ("MovieLens 1M: latin-1, users.dat beside it", ML_DAT | {"movies.dat": ML_DAT["movies.dat"].replace("T1", "é").encode("latin-1"), "users.dat": "1::F::1::10::48067\n"}, 3),
    ("MovieLens 10M: UTF-8, half stars", ML_DAT | {"movies.dat": ML_DAT["movies.dat"].replace("T1", "é"), "ratings.dat": ML_DAT["ratings.dat"].replace("::5::", "::3.5::")}, 3),
    ("MovieLens 1M: one film with two ids", ML_DAT | {"movies.dat": ML_DAT["movies.dat"].replace("T7", "T6")}, 3),
    ("MovieLens 20M, 25M, 32M: quoted titles, no genre", ML_CSV | {"movies.csv": ML_CSV["movies.csv"].replace("War", "(no genres listed)"), "tags.csv": "userId,movieId,tag,timestamp\n", "links.csv": "movieId,imdbId,tmdbId\n"}, 3),
    ("MovieLens latest: CRLF", {name: text.replace("\n", "\r\n") for name, text in ML_CSV.items()}, 3),
    ("MovieLens latest: gzipped", gzipped(ML_CSV), 3),
    ("MovieLens latest: ratings gzipped and movies not", {"movies.csv": ML_CSV["movies.csv"]} | gzipped(ML_CSV, "ratings.csv"), 3),
    ("MovieLens 100K: gzipped", gzipped(ML_100K), 3),
    ("MovieLens 1M: gzipped", gzipped(ML_DAT), 3),
    ("MovieLens through Excel: BOM, sep=, capitals", ML_CSV | {"ratings.csv": "\ufeffsep=,\n" + ML_CSV["ratings.csv"].replace("userId,movieId", "UserId,MovieId")}, 3),
    ("Amazon 2014: single quotes", AMAZON | {"meta_Video_Games.json": "".join(f"{row}\n" for row in META)}, 3),
    ("Amazon 2014: Python's literals in both", {"reviews_Video_Games_5.json": "".join(f"{json.loads(line)}\n" for line in REVIEWS.splitlines()), "meta_Video_Games.json": "".join(f"{ {**row, 'related': None, 'title': row['title'] + chr(39)} }\n" for row in META)}, 3),
    ("Amazon 2014: ratings only, no header", {"ratings_Video_Games.csv": table(",", *((f"A{u}", ASINS[i], 5.0, t) for u, i, t in EVENTS)), "meta_Video_Games.json": jsonl(*META)}, 3),
    ("Amazon 2018: ratings only, item first", {"Video_Games.csv": table(",", *((ASINS[i], f"A{u}", 5.0, t) for u, i, t in EVENTS)), "meta_Video_Games.json": jsonl(*META)}, 3),
    ("Amazon 2018: getTime for a title", AMAZON | {"meta_Video_Games.json": jsonl(META[0] | {"title": "var aPageStart = (new Date()).getTime();"}, *META[1:])}, 3),
    ("Amazon 2018: script and style in a title", AMAZON | {"meta_Video_Games.json": jsonl(META[0] | {"title": "<script>f()</script><style>a{b:c}</style><!--[if IE]>x<![endif]-->"}, *META[1:])}, 3),
    ("Amazon 2018: a cut-off tag", AMAZON | {"meta_Video_Games.json": jsonl(META[0] | {"title": '<span class="a-size-medium'}, *META[1:])}, 3),
    ("Amazon 2018: a product twice", AMAZON | {"meta_Video_Games.json": jsonl(*META, META[0])}, 3),
    ("Amazon 2018: gzipped", gzipped(AMAZON), 3),
    ("Amazon 2023: header and parent_asin", AMAZON_2023, 3),
    ("Amazon 2023: history column of the timestamp split", AMAZON_2023 | {"Video_Games.csv": AMAZON_2023["Video_Games.csv"].replace("timestamp\n", "timestamp,history\n").replace("000\n", "000,B1 B2\n")}, 3),
    ("Amazon 2023: reviews as JSON lines", {"Video_Games.jsonl": jsonl(*({"user_id": u, "asin": "V", "parent_asin": ASINS[i], "timestamp": t * 1000, "title": "good"} for u, i, t in EVENTS)), "meta_Video_Games.jsonl": AMAZON_2023["meta_Video_Games.jsonl"]}, 3),
    ("RecBole: token_seq and float", RECBOLE, 3),
    ("RecBole: gzipped", gzipped(RECBOLE), 3),
    ("RecBole: titles gzipped and events not", {"ml.inter": RECBOLE["ml.inter"]} | gzipped(RECBOLE, "ml.item"), 3),
    ("RecBole: times as floats", RECBOLE | {"ml.inter": RECBOLE["ml.inter"].replace("\n", ".0\n").replace("float.0", "float")}, 3),
    ("RecBole: quotes in titles are text", RECBOLE | {"ml.item": RECBOLE["ml.item"].replace("T1 x", '"T1" x')}, 3),
    ("RecBole: a .user file beside it", RECBOLE | {"ml.user": "user_id:token\tage:token\na\t3\n"}, 3),
    ("GraphRouter: line ends and quotes in queries", GRAPH, 9),
    ("GraphRouter: a byte order mark", {"router_data.csv": "\ufeff" + GRAPH["router_data.csv"]}, 9),
    ("LLMRouter: U+2028 and U+0085 in strings", LLMROUTER, 3),
    ("LLMRouter: NaN for a score", LLMROUTER | {"routing_data.jsonl": LLMROUTER["routing_data.jsonl"].replace('"performance": 1.0', '"performance": NaN', 1)}, 2),
    ("LLMRouter: an array over many lines", {"train.json": json.dumps([{"question": f"q{n}", "scores": {"x": 1, "y": 0}} for n in range(3)], indent=2)}, 3),
    ("RouterBench: wide Parquet", {"routerbench_0shot.parquet": [{**BENCH, "sample_id": f"s{n}", "prompt": f"['q{n}']"} for n in range(3)]}, 9),
    ("RouterBench: wide CSV", {"routerbench_0shot.csv": table(",", BENCH, *((f"s{n}", f"\"['q{n}', 'x']\"", *list(BENCH.values())[2:]) for n in range(3)))}, 9),
    ("RouterBench: a pickle is never opened", {"routerbench_0shot.pkl": b"\x80\x04"}, "a pickle can run any program"),
    ("MS MARCO v1.1: Parquet", {"train-00000-of-00001.parquet": [marco(0), marco(1)], "test-00000-of-00001.parquet": [marco(2)]}, 3),
    ("MS MARCO v1.1: JSON lines of objects", {"train_v1.1.json": jsonl(objects(marco(0)), objects(marco(1)))}, 2),
    ("MS MARCO v2.1: Parquet, no label in test", {"train.parquet": [marco(0)], "validation.parquet": [marco(1)], "test.parquet": [marco(2, NO_LABEL)]}, 2),
    ("MS MARCO v2.1: JSON lines, no label in test", {"train.json": jsonl(marco(0)), "dev.json": jsonl(marco(1)), "test.json": jsonl(marco(2, NO_LABEL))}, 2),
    ("MS MARCO v2.1: columns, wellFormedAnswers a text", {"train_v2.1.json": columns(*(objects(marco(n, wellFormedAnswers="[]")) for n in range(3)))}, 3),
    ("MS MARCO v2.1: columns, no label in eval", {"train_v2.1.json": columns(objects(marco(0))), "dev_v2.1.json": columns(objects(marco(1))), "eval_v2.1_public.json": columns(objects(marco(2, NO_LABEL)))}, 2),
    ("MS MARCO: some flags -1 and some not", {"train.parquet": [marco(0), marco(1, (-1, 1, 0, 0, 0))]}, "row 2: is_selected is '-1', not 0 or 1"),
    ("MS MARCO: only files without labels", {"test.parquet": [marco(0, NO_LABEL)]}, 0),
    ("TREC: tabs or spaces, unretrieved judgements", TREC, 1),
    ("TREC: negative grades", TREC | {"qrels.dl19-passage.txt": "1 0 d0 3\n1 0 d1 -2\n"}, 1),
    ("TREC: an iteration other than 0", TREC | {"qrels.dl19-passage.txt": "1 Q0 d0 3\n1 1 d1 0\n"}, 1),
    ("TREC: gzipped", gzipped(TREC), 1),
    *((f"TREC: names of Deep Learning 20{year}", trec(qrels, queries), 1) for year, qrels, queries in (
        (19, "2019qrels-pass.txt", "msmarco-test2019-queries.tsv"), (20, "2020qrels-pass.txt", "msmarco-test2020-queries.tsv"),
        (21, "2021.qrels.pass.final.txt", "2021_queries.tsv"), (22, "2022.qrels.pass.withDupes.txt", "2022_queries.tsv"),
        (23, "2023.qrels.pass.no_dupes.txt", "2023_queries.tsv"))),
    ("BEIR: gzipped", gzipped(BEIR), 1),
    ("BEIR: two sets side by side", BEIR | {name.replace("scifact", "fiqa"): text for name, text in BEIR.items()}, 2),
    ("BEIR: qrels of three columns with a header", BEIR, 1),
    ("BEIR: qrels with scores as floats", BEIR | {"scifact/qrels/test.tsv": BEIR["scifact/qrels/test.tsv"].replace("\t1\n", "\t1.0\n")}, 1),
    ("WikiQA: a sentence twice, once an answer", {"WikiQA.tsv": wiki(("same", 0), ("same", 1), ("other", 0))}, 1),
    ("WikiQA: quotes are text", {"WikiQA.tsv": wiki(('"a', 1), ('b"', 0))}, 1),
    ("WikiQA: test without labels, gold beside it", {"WikiQA-train.tsv": wiki(("a", 1), ("b", 0)), "WikiQA-test.tsv": WIKI.replace("\tLabel", "") + "Q2\twho\tD\tt\tS\ts\n", "WikiQA-test-gold.tsv": wiki(("c", 1), ("d", 0)).replace("Q1", "Q2")}, 2),
    ("Ranking-bench: candidates as Python writes them", {"train.csv": table(",", ("problem", "gt", "candidates", "task_name"), ('"in order: A\n\nNow there are 2"', "b", "\"['b', 'c']\"", "Rec-Movie"))}, 1),
]  # fmt: skip


def outcome(raw):
    """How many tasks are made, of all datasets, with a history of two; or the error."""
    options = Options(history=2, candidates=2, max_chars=10_000)
    work = Work(raw.parent / "work")
    try:
        return sum(part.num_rows for source in discover(raw).sources for part in made(source, options, work=work))
    except UserError as error:
        return str(error)


@pytest.mark.parametrize(("files", "expected"), [quirk[1:] for quirk in QUIRKS], ids=[quirk[0] for quirk in QUIRKS])
def test_a_quirk_of_published_data(tmp_path, files, expected):
    for name, content in files.items():
        path = tmp_path / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list):
            pq.write_table(pa.Table.from_pylist(content), path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = outcome(tmp_path / "raw")
    assert expected in found if isinstance(expected, str) else found == expected


@pytest.mark.parametrize(
    ("title", "left"),
    [
        ("var aPageStart = (new Date()).getTime();", ""),
        (
            "<script>var aPageStart = (new Date()).getTime();</script>\nReal Title",
            "",
        ),  # as the published notebook has it
        ("<script type='text/javascript'>f(1 < 2)</script>", ""),
        ("<SCRIPT>f()</SCRIPT >Game", "Game"),
        ("<style>.nav{color:red}</style>Game", "Game"),
        ("Game<script>f()", "Game"),
        ("Game<style>.nav{", "Game"),
        ("&lt;script&gt;f()&lt;/script&gt;Game", "Game"),
        ("&amp;lt;style&amp;gt;a{}&amp;lt;/style&amp;gt;Game", "Game"),
        ("<!--[if IE]>x<![endif]-->", ""),
        ("<!-- a\n b -->Game<!-- open", "Game"),
        ('<span id="productTitle" class="a-size-large">Game</span>', "Game"),
        ('<span class="a-size-medium', ""),
        ("Scripted <3 Style", "Scripted <3 Style"),
        (["Game"], ""),
        (None, ""),
    ],
)
def test_what_is_left_of_a_title(tmp_path, title, left):
    path = tmp_path / "meta_Video_Games.json"
    path.write_text(json.dumps({"asin": "B000000001", "title": title}) + "\n")
    (item,) = read_items(path, Counter())
    assert item_text(item) == left


@pytest.mark.parametrize(
    "times",
    [
        [1_700_000_000_000_000_300, 1_700_000_000_000_000_200, 1_700_000_000_000_000_100],
        [2**53 + 3, 2**53 + 1, 2**53 + 2, 2**53],
        [-(2**60) - 1, -(2**60), -(2**60) + 1],
        [2**62 - 1, 2**62 - 2],
        [2**63 - 1, 2**63 - 2],
        [2**64 + 1, 2**64],
        ["+1700000000000000001", "1700000000000000002"],
        ["0001700000000000000001", "1700000000000000000"],
        [" 1700000000000000001", "1700000000000000000 "],
        ["1.7e18", "1700000000000000001"],
        ["1700000000000000000.5", "3"],
        [3, 2, 1],
    ],
)
@pytest.mark.parametrize("fast", [True, False])
def test_whole_numbers_stay_whole_numbers_in_the_fast_reader_and_in_the_slow_one(tmp_path, monkeypatch, times, fast):
    path = tmp_path / "events"
    path.write_text("".join(f"u\ti{n}\t5\t{time}\n" for n, time in enumerate(times)))
    if not fast:
        monkeypatch.setattr(events, "_fast", lambda *_: iter(()))
    rows = [
        exact(row)[2]
        for batch in events.table_events(path, Layout("\t", 4, user=0, item=1, time=3), {"lines: blank": 0})
        for row in batch.to_pylist()
    ]
    assert rows == [int(time) if str(time).strip().lstrip("+-").isdigit() else float(time) for time in times]


@pytest.mark.parametrize("step", [1, 100, 10_000])
def test_nanoseconds_order_a_user_s_events(tmp_path, step):
    start = 1_700_000_000_000_000_000
    rows = [f"u,i{n},{start + n * step},title {n}" for n in range(30)]
    (tmp_path / "ns.csv").write_text(
        "\n".join(["user_id,item_id,timestamp,title", *reversed(rows), "v,j0,1,x", "v,j1,2,y"]) + "\n"
    )
    (source,) = discover(tmp_path).sources
    parts = made(source, Options(history=20, candidates=2), work=Work(tmp_path / "work"))
    (task,) = [row for part in parts for row in part.to_pylist()]
    assert task["candidate_ids"][0] == "i29" and task["history_ids"] == [f"i{n}" for n in range(9, 29)]
