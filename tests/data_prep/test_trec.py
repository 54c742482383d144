"""TREC test collections: which files belong together, which candidates are taken, what is dropped and refused."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import ir_measures
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.readers.sniff import RawFile
from data_prep.sources import trec
from iranker_verl.errors import UserError
from tests.data_prep.source_runs import find, made, run

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "passage"

QRELS = "7 0 a 3\n7 0 b 0\n7 0 c 1\n7 0 z 2\n8 0 a 0\n9 0 a 1\n"


def hit(docid, rank, score, content=None, qid=7):
    return {
        "content": f"text {docid}" if content is None else content,
        "qid": qid,
        "docid": docid,
        "rank": rank,
        "score": score,
    }


def write(raw, hits, qrels=QRELS, name="retrieve_results_dl19.json"):
    """``hits`` is ``{query: [hit]}``."""
    content = [{"query": query, "hits": own} for query, own in hits.items()]
    (raw / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    (raw / "qrels.dl19-passage.txt").write_text(qrels, encoding="utf-8")


def test_a_graded_task(tmp_path):
    hits = [hit("b", 1, 9.5), hit("a", 2, 9.0, "Title: A\u2028 Content:\n x"), hit("u", 3, 8), hit("c", 4, 7.5)]
    write(tmp_path, {"how \n long": hits})
    (task,), dropped, source = run(trec.find_trec, tmp_path)
    assert task == {
        "task_id": "trec-dl19:7",
        "dataset": "trec-dl19",
        "scenario": "passage",
        "context": "how long",
        "candidate_ids": ["b", "a", "u", "c"],
        "candidates": ["text b", "Title: A Content: x", "text u", "text c"],
        "relevance": [0.0, 3.0, 0.0, 1.0],
        "group": "how long",
        "side": "test",
        "history_ids": [],
        "time": None,
        "earlier": 0,
    }
    assert dropped == {"trec-dl19": {"queries: judged, without candidates": 2}}  # 8 and 9
    assert (source.format, source.datasets) == ("TREC", ("trec-dl19",))
    assert [path.name for path in source.files] == ["qrels.dl19-passage.txt", "retrieve_results_dl19.json"]


def test_the_best_candidates_are_taken(tmp_path):
    hits = [hit("x", 1, 1.0), hit("a", 5, 2.0), hit("c", 3, 2.0), hit("b", 4, 3.0)]
    write(tmp_path, {"q": hits})
    assert run(trec.find_trec, tmp_path, Options(passages=3))[0][0]["candidate_ids"] == ["b", "c", "a"]
    write(tmp_path, {"q": [hit(f"{n}", n, -n) for n in range(1, 41)]}, "7 0 20 1\n")
    (task,) = run(trec.find_trec, tmp_path)[0]
    assert task["candidate_ids"] == [str(n) for n in range(1, 21)]
    assert task["relevance"] == [0.0] * 19 + [1.0]


def test_a_test_collection_has_no_length_cap(tmp_path):
    write(tmp_path, {"q": [hit("a", 1, 2, "x" * 9000), hit("b", 2, 1)]})
    assert len(run(trec.find_trec, tmp_path)[0]) == 1


def test_every_reason_to_drop(tmp_path):
    def pair(qid, one="a", two="b"):
        return [hit(one, 1, 2, qid=qid), hit(two, 2, 1, qid=qid)]

    hits = {
        "used": [hit("e", 1, 5, " \n", qid=1), *pair(1)],
        "not judged": pair(2),
        "none relevant": pair("3"),
        "all equal": pair(4),
        " ": pair(5),
        "one": [hit("a", 1, 1, qid=6)],
        "emptied": [hit("a", 1, 1, qid=7), hit("b", 2, 1, "", qid=7)],
        "no hits": [],
        "no hits either": [],
        "negative": pair(8),
    }
    qrels = "1 0 a 1\n3 0 z 1\n4 0 a 2\n4 0 b 2\n5 0 a 1\n6 0 a 1\n7 0 a 1\n8 0 a -2\n8 Q0 b -1\n10 0 a 1\n"
    write(tmp_path, hits, qrels)
    tasks, dropped, _ = run(trec.find_trec, tmp_path)
    assert [task["task_id"] for task in tasks] == ["trec-dl19:1"]
    assert dropped["trec-dl19"] == {
        "queries: not judged": 1,
        "queries: no relevant passage among the candidates": 2,
        "queries: all candidates equally relevant": 1,
        "queries: empty": 1,
        "queries: fewer than 2 candidates": 4,
        "passages: empty": 2,
        "queries: judged, without candidates": 1,
    }
    assert (
        sum(n for reason, n in dropped["trec-dl19"].items() if "judged, w" not in reason and "passages:" not in reason)
        == len(hits) - 1
    )


def test_a_negative_grade_is_none(tmp_path):
    write(tmp_path, {"q": [hit("a", 1, 2), hit("b", 2, 1)]}, "7 0 a -1\n7 0 b 1\n")
    assert run(trec.find_trec, tmp_path)[0][0]["relevance"] == [0.0, 1.0]


RUN = "7 Q0 b 1 9.5 bm25\n7 Q0 a 2 9.0 bm25\n7 Q0 u 3 8 bm25\n7 Q0 c 4 7.5 bm25\n"


def write_run(raw, run=RUN, zipped=False):
    (raw / "qrels.dl19.txt").write_text(QRELS)
    (raw / "bm25.dl19.run").write_text(run)
    (raw / "topics.dl19.tsv").write_text("7\thow long\n99\tnot in the run\n")
    content = "".join(f"{id}\ttext {id}\n" for id in "abcuxyz").encode()
    if zipped:
        (raw / "collection.tsv.gz").write_bytes(gzip.compress(content))
    else:
        (raw / "collection.tsv").write_bytes(content)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_run_with_its_text_says_the_same(tmp_path, zipped):
    (tmp_path / "json").mkdir()
    (tmp_path / "run").mkdir()
    write(tmp_path / "json", {"how long": [hit("b", 1, 9.5), hit("a", 2, 9.0), hit("u", 3, 8), hit("c", 4, 7.5)]})
    write_run(tmp_path / "run", zipped=zipped)
    one, other = (run(trec.find_trec, tmp_path / name, Options(passages=3)) for name in ("json", "run"))
    assert one[:2] == other[:2]
    assert len(one[0]) == 1
    assert len(other[2].files) == 4


def test_files_of_one_line_without_an_end(tmp_path):
    write_run(tmp_path, "7 Q0 a 1 2 bm25\n7 Q0 b 2 1 bm25")
    (tmp_path / "topics.dl19.tsv").write_text("7\thow long")
    assert len(run(trec.find_trec, tmp_path)[0]) == 1


def test_a_run_needs_its_parts(tmp_path):
    write_run(tmp_path)
    (tmp_path / "topics.dl19.tsv").unlink()
    with pytest.raises(
        UserError, match=r"bm25.dl19.run: a run without text; put collection.tsv .* beside it, or rank_llm"
    ):
        find(trec.find_trec, tmp_path)
    write_run(tmp_path)
    (tmp_path / "collection.tsv").unlink()
    with pytest.raises(UserError, match=r"bm25.dl19.run: a run without text"):
        find(trec.find_trec, tmp_path)
    write_run(tmp_path)
    (tmp_path / "qrels.dl19.txt").unlink()
    with pytest.raises(UserError, match=r"bm25.dl19.run: the judgements of trec-dl19 are missing; put its qrels"):
        find(trec.find_trec, tmp_path)
    write_run(tmp_path)
    (tmp_path / "bm25.dl19.run").unlink()
    with pytest.raises(UserError, match=r"qrels.dl19.txt: judgements without candidates; put rank_llm"):
        find(trec.find_trec, tmp_path)
    for name in ("qrels.dl19.txt",):
        (tmp_path / name).unlink()
    assert not find(trec.find_trec, tmp_path)  # topics and texts by themselves are nobody's


def test_candidates_need_judgements_and_there_is_one_of_each(tmp_path):
    write(tmp_path, {"q": [hit("a", 1, 1)]})
    (tmp_path / "qrels.dl20.txt").write_text(QRELS)
    with pytest.raises(UserError, match=r"qrels.dl20.txt: judgements without candidates"):
        find(trec.find_trec, tmp_path)
    (tmp_path / "qrels.dl20.txt").rename(tmp_path / "2019qrels-pass.txt")
    with pytest.raises(
        UserError, match=r"2019qrels-pass.txt and .*qrels.dl19-passage.txt are both judgements of trec-dl19"
    ):
        find(trec.find_trec, tmp_path)
    (tmp_path / "2019qrels-pass.txt").unlink()
    (tmp_path / "qrels.dl19-passage.txt").unlink()
    with pytest.raises(UserError, match=r"retrieve_results_dl19.json: the judgements of trec-dl19 are missing"):
        find(trec.find_trec, tmp_path)


def test_runs_beside_candidates_with_text_are_not_read(tmp_path):
    write(tmp_path, {"q": [hit("a", 1, 1), hit("b", 2, 0)]})
    for name in ("one.dl19.txt", "two_dl19_2023-08-04.txt"):
        (tmp_path / name).write_text(RUN)
    assert [path.name for path in run(trec.find_trec, tmp_path)[2].files] == [
        "qrels.dl19-passage.txt",
        "retrieve_results_dl19.json",
    ]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("qrels.dl19-passage.txt", "dl19"),
        ("2019qrels-pass.txt", "dl19"),
        ("2021.qrels.pass.final.txt", "dl21"),
        ("msmarco-test2020-queries.tsv.gz", "dl20"),
        ("gpt-3.5-turbo_4096_100_PromptMode.RANK_GPT_dl19_2023-08-04T23-26-51.541203.txt", "dl19"),
        ("retrieve_results_dl-22.json", "dl22"),
        ("qrels-covid_d5_j0.5-5.txt", "covid-d5-j0-5-5"),
        ("qrels.covid-2020.txt", "covid-2020"),
        ("topics.robust04.tsv", "robust04"),
        ("qrels.txt", "my-folder"),
        ("run.trec", "my-folder"),
    ],
)
def test_names(tmp_path, name, key):
    assert trec._key(RawFile(tmp_path / "My Folder" / name)) == key


def test_two_collections(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in "ab":
        (tmp_path / folder / "qrels.txt").write_text(QRELS)
        (tmp_path / folder / "results.json").write_text(
            json.dumps([{"query": "q", "hits": [hit("a", 1, 1), hit("b", 2, 0)]}])
        )
    assert [source.datasets for source in find(trec.find_trec, tmp_path)] == [("trec-a",), ("trec-b",)]


# -------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        (
            "7 0 a 1\n7 a 1\n",
            r"row 2: 3 columns, 4 expected .*or BEIR's three under the header .*, in '7 a 1'; correct or remove the row",
        ),
        ("7,0,a,1\n", "row 1: 1 columns, 4 expected .* in '7,0,a,1'"),
        ("7 0 a good\n", "row 1: grade is 'good', not a number"),
        ("7 0 a nan\n", "row 1: grade is 'nan', not a number"),
        ("7 0 a 1\n\n7 0 a 2\n", "row 3: passage 'a' of query '7' has a second grade"),
        ("", ": the file is empty"),
        ("7 0 \udcff 1\n", "row 1: byte 5 of the row is not utf-8 text"),
    ],
)
def test_bad_judgements(tmp_path, qrels, message):
    write(tmp_path, {"q": [hit("a", 1, 1), hit("b", 2, 0)]})
    (tmp_path / "qrels.dl19-passage.txt").write_bytes(qrels.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=message) as error:
        run(trec.find_trec, tmp_path)
    assert "qrels.dl19-passage.txt" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("hits", "message"),
    [
        ([hit("a", 1, 1), hit("a", 2, 0)], "passage 'a' occurs twice for one query"),
        ([hit("a", 1, 1), hit("b", 2, 0, qid=8)], "its hits have different qids, '7', '8'"),
        ([hit("a", "first", 1)], "rank is 'first', not a number"),
        ([hit("a", 1, None)], "score is 'None', not a number"),
        ([hit(None, 1, 1)], "the docid is empty"),
        ([hit("a", 1, 1, qid=[1])], "the qid is '.1.', not a text"),
        ([hit("a", 1, 1, content=5)], "a hit is .*, without a text content"),
        (["a"], "a hit is 'a', without a text content"),
        ({"a": 1}, "not an object with a text query and a list hits"),
    ],
)
def test_bad_candidates(tmp_path, hits, message):
    write(tmp_path, {"fine": [hit("a", 1, 1, qid=1), hit("b", 2, 0, qid=1)], "bad": hits})
    with pytest.raises(UserError, match=f"retrieve_results_dl19.json row 2: {message}"):
        run(trec.find_trec, tmp_path)


def test_a_query_twice(tmp_path):
    write(tmp_path, {"q": [hit("a", 1, 1), hit("b", 2, 0)], "q again": [hit("a", 1, 1), hit("b", 2, 0)]})
    with pytest.raises(UserError, match=r"retrieve_results_dl19.json: query '7' occurs twice"):
        run(trec.find_trec, tmp_path)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("bm25.dl19.run", RUN + "7 Q0 a 5 1 bm25\n", "bm25.dl19.run row 5: passage 'a' occurs twice for one query"),
        ("bm25.dl19.run", RUN + "7 Q0 x 5 1\n", "bm25.dl19.run row 5: 5 columns, 6 expected"),
        ("bm25.dl19.run", RUN + "7 Q0 x five 1 b\n", "bm25.dl19.run row 5: rank is 'five', not a number"),
        ("bm25.dl19.run", RUN + "7 Q0 x 5 inf b\n", "bm25.dl19.run row 5: score is 'inf', not a number"),
        ("collection.tsv", "a\tx\nb\ty\nc z\n", "collection.tsv row 3: 'c z' has no tab between id and text"),
        ("collection.tsv", "a\tx\nb\ty\nc\tz\n", "collection.tsv: no passage 'u', which is in .*bm25.dl19.run"),
    ],
)
def test_bad_runs_and_texts(tmp_path, file, text, message):
    write_run(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        run(trec.find_trec, tmp_path)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1, exclude_max=True))
def test_candidates_that_are_cut_off(tmp_path_factory, where):
    raw = tmp_path_factory.mktemp("cut")
    write(raw, {f"q{n}": [hit("a", 1, 1, qid=n), hit("b", 2, 0, qid=n)] for n in range(9)})
    path = raw / "retrieve_results_dl19.json"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content.rstrip()) * where)])
    with pytest.raises(UserError, match=r"not a whole JSON file|qrels.*judgements without candidates"):
        run(trec.find_trec, raw)


# --------------------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
@pytest.mark.parametrize(
    ("year", "used", "lost"),
    [
        ("dl19", 43, {}),
        ("dl21", 52, {"queries: no relevant passage among the candidates": 1, "passages: graded as an equal one": 19}),
    ],
)
def test_real_files(year, used, lost):
    (source,) = [source for source in find(trec.find_trec, DATA) if source.datasets == (f"trec-{year}",)]
    assert [path.name for path in source.files] == [f"qrels.{year}-passage.txt", f"retrieve_results_{year}.json"]
    dropped = defaultdict(lambda: defaultdict(int))
    tasks = [task for table in made(source, dropped=dropped) for task in table.to_pylist()]
    assert len(tasks) == used
    reasons = {reason: n for reason, n in dropped[f"trec-{year}"].items() if n}
    assert reasons == lost
    # Counted here from the other copies of the same facts: TREC's run and TREC's topics.
    grades = defaultdict(dict)
    for line in (DATA / "trec_dl_qrels" / f"qrels.{year}-passage.txt").read_text().splitlines():
        query, _, passage, grade = line.split()
        grades[query][passage] = float(grade)
    ranked = defaultdict(list)
    for line in (DATA / "trec_dl_bm25_top100" / f"trec_results_{year}.txt").read_text().splitlines():
        query, _, passage, *_ = line.split()
        ranked[query].append(passage)
    assert len(ranked) == used + (year == "dl21")
    for task in tasks:
        query = task["task_id"].removeprefix(f"trec-{year}:")
        assert task["candidate_ids"] == ranked[query][:20]
        own = [grades[query].get(passage, 0.0) for passage in ranked[query][:20]]
        best = {
            text: max(g for t, g in zip(task["candidates"], own, strict=True) if t == text)
            for text in task["candidates"]
        }
        assert task["relevance"] == [best[text] for text in task["candidates"]]
        assert task["side"] == "test"


@pytest.mark.skipif(not DATA.is_dir(), reason="no real data beside the project (../shared/data)")
def test_bm25_on_dl19_has_its_published_ndcg():
    (source,) = [source for source in find(trec.find_trec, DATA) if source.datasets == ("trec-dl19",)]
    tasks = [task for table in made(source, Options(passages=100)) for task in table.to_pylist()]
    run = [
        ir_measures.ScoredDoc(task["task_id"].partition(":")[2], passage, -place)
        for task in tasks
        for place, passage in enumerate(task["candidate_ids"])
    ]
    judged = ir_measures.read_trec_qrels(str(DATA / "trec_dl_qrels" / "qrels.dl19-passage.txt"))
    measure = ir_measures.nDCG @ 10
    assert ir_measures.calc_aggregate([measure], judged, run)[measure] == pytest.approx(0.5058, abs=5e-5)
