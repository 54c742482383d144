"""TREC files: what is read and written, what is refused, and the published numbers of published runs."""

import gzip
import math
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iranker_verl.errors import UserError
from iranker_verl.evaluation.trec import ranked, read_qrels, read_run, score, write_qrels, write_run

DATA = Path(__file__).parents[3] / "shared" / "data"
RUNS = DATA / "peer_runs" / "trec_dl_rerank_runs"
needs_data = pytest.mark.skipif(not RUNS.is_dir(), reason="the published runs are not beside the project")


def file(folder, text, name="file"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_reading(tmp_path):
    run = file(tmp_path, "q1 Q0 d1 1 2.5 tag\nq1\tQ0\td2\t2\t-1e-3\ttag\r\n\nq2 Q0 d1 1 0 tag")
    assert read_run(run) == {"q1": {"d1": 2.5, "d2": -0.001}, "q2": {"d1": 0.0}}
    assert read_qrels(file(tmp_path, "q1 0 d1 3\nq1 Q0 d2 -1\n")) == {"q1": {"d1": 3, "d2": -1}}
    assert read_qrels(file(tmp_path, "q 0 d 2147483647\n")) == {"q": {"d": 2**31 - 1}}


def test_gzipped(tmp_path):
    assert read_qrels(file(tmp_path, gzip.compress(b"q 0 d 1\n"))) == {"q": {"d": 1}}


@pytest.mark.parametrize(
    ("read", "text", "row", "message"),
    [
        (read_run, "q Q0 d 1 2.0\n", 1, "5 columns, 6 expected"),
        (read_run, "q Q0 d 1 2.0 tag more\n", 1, "7 columns"),
        (read_run, "q Q0 d 1 2.0 tag\nq Q0 d 2 1.0 tag\n", 2, "d occurs twice under query q"),
        (read_run, "q Q0 d 1 high tag\n", 1, "score is 'high', not a number"),
        (read_run, "q Q0 d 1 nan tag\n", 1, "score is 'nan'"),
        (read_run, "q Q0 d first 1 tag\n", 1, "rank is 'first'"),
        (
            read_qrels,
            "q 0 d\n",
            1,
            r"3 columns, 4 expected .*, or BEIR's three under the header query-id corpus-id score",
        ),
        (read_qrels, "query-id\tcorpus-id\tscore\nq\td\t1\nq\t0\te\t1\n", 3, "4 columns, 3 expected"),
        (read_qrels, "query-id\tcorpus-id\tscore\nq\td\tgood\n", 2, "grade is 'good'"),
        (read_qrels, "q 0 d 1\nquery-id corpus-id score\n", 2, "3 columns, 4 expected"),
        (read_qrels, "q 0 d 1\nq 0 d 1\n", 2, "occurs twice"),
        (read_qrels, "q 0 d 0.5\n", 1, "grade is '0.5', not a whole number"),
        (read_qrels, "q 0 d good\n", 1, "grade is 'good'"),
        (read_qrels, b"q 0 d 1\nq 0 \xff 1\n", 2, "not utf-8"),
        (read_qrels, "q 0 d 1\nq 0 e 1e300\n", 2, "grade is '1e300', which does not fit 32 bits"),
        (read_qrels, "q 0 d 99999999999\n", 1, "grade is '99999999999', which does not fit 32 bits"),
        (read_qrels, "q 0 d 2147483648\n", 1, "does not fit 32 bits"),
        (read_qrels, "q 0 d -2147483649\n", 1, "does not fit 32 bits"),
    ],
)
def test_refused_by_file_and_row(tmp_path, read, text, row, message):
    with pytest.raises(UserError, match=f"file row {row}: .*{message}"):
        read(file(tmp_path, text))


def test_empty_and_missing(tmp_path):
    with pytest.raises(UserError, match="empty"):
        read_run(file(tmp_path, "\n\n"))
    with pytest.raises(UserError, match="cannot be read"):
        read_qrels(tmp_path / "none")


plain = st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C"), exclude_characters="%"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(plain, st.lists(plain, min_size=1, max_size=6, unique=True), min_size=1, max_size=4))
def test_round_trip(tmp_path_factory, rankings):
    folder = tmp_path_factory.mktemp("trec")
    write_run(folder / "run", rankings, "a tag")
    run = read_run(folder / "run")
    assert {q: sorted(scores, key=scores.__getitem__, reverse=True) for q, scores in run.items()} == rankings
    grades = {q: {d: i - 1 for i, d in enumerate(documents)} for q, documents in rankings.items()}
    write_qrels(folder / "qrels", grades)
    assert read_qrels(folder / "qrels") == grades


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=6, unique=True))
def test_ids_with_spaces_stay_apart_and_match_between_files(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("trec")
    write_run(folder / "run", {ids[0]: ids}, "tag")
    write_qrels(folder / "qrels", {ids[0]: dict.fromkeys(ids, 1)})
    run, qrels = read_run(folder / "run"), read_qrels(folder / "qrels")
    assert run.keys() == qrels.keys()
    [[query, scores]] = run.items()
    assert scores.keys() == qrels[query].keys() and len(scores) == len(ids)


def test_an_empty_id_is_refused(tmp_path):
    with pytest.raises(UserError, match="empty"):
        write_run(tmp_path / "run", {"q": [""]}, "tag")


def test_scores_by_hand():
    run = {"a": {"d1": 3.0, "d2": 2.0, "d3": 1.0}, "b": {"d1": 1.0}, "unjudged": {"d1": 1.0}}
    qrels = {"a": {"d2": 1}, "b": {"d1": 1}, "absent": {"d1": 1}}
    scores = score(run, qrels, ["RR", "Success@1"])
    assert scores.means == pytest.approx({"RR": (1 / 2 + 1 + 0) / 3, "Success@1": 1 / 3})
    assert (scores.judged, scores.missing, scores.unjudged) == (3, 1, 1)


@pytest.mark.parametrize(
    "header",
    [
        "query-id\tcorpus-id\tscore",
        "Query-ID\tCorpus-ID\tScore",
        "query_id\tcorpus_id\tscore",
        "\ufeffquery-id\tcorpus-id\tscore",
        '"query-id"\t"corpus-id"\t"score"',
        " query-id\t corpus-id \tscore ",
        "query-id corpus-id score",
        "query-id   corpus-id   score",
        "\nquery-id\tcorpus-id\tscore\r",
        "QUERY_ID\tCORPUS_ID\tSCORE",
    ],
)
def test_beirs_qrels_are_read(tmp_path, header):
    text = f"{header}\nq1\td1\t2\nq1\td2\t0\n".replace("\t", "\t" if "\t" in header else " ")
    assert read_qrels(file(tmp_path, text)) == {"q1": {"d1": 2, "d2": 0}}
    assert read_qrels(file(tmp_path, gzip.compress(text.encode()))) == {"q1": {"d1": 2, "d2": 0}}


def test_equal_scores_are_one_ranking_in_all_measures_and_orders_of_lines():
    qrels = {"1": {"d1": 0, "d2": 1}}
    names = ["nDCG@10", "RR", "RR@10", "Success@1", "Compat", "Judged@1", "AP", "P@1"]
    for run in ({"d1": 5.0, "d2": 5.0}, {"d2": 5.0, "d1": 5.0}):
        assert set(score({"1": run}, qrels, names).means.values()) == {1.0}


def test_scores_that_32_bits_do_not_tell_apart_are_still_in_order():
    run = {"1": {"d1": 1.0 + 1e-12, "d2": 1.0, "d3": 1e300, "d4": 2e300}}
    assert ranked(run["1"]) == ["d4", "d3", "d1", "d2"]
    assert score(run, {"1": {"d3": 1}}, ["RR", "RR@10", "Success@1"]).means == {"RR": 0.5, "RR@10": 0.5, "Success@1": 0}


def brute_force(ranking, grades):
    """The measures of one ranking, by their formulas."""
    gains = [max(0, grades.get(d, 0)) for d in ranking]
    ideal = sorted((max(0, g) for g in grades.values()), reverse=True)
    relevant, first = sum(g > 0 for g in ideal), next((i for i, g in enumerate(gains, 1) if g > 0), math.inf)

    def dcg(values, k):
        return sum(g / math.log2(i + 1) for i, g in enumerate(values[:k], 1))

    precisions = [sum(g > 0 for g in gains[:i]) / i for i, g in enumerate(gains, 1) if g > 0]
    found = {"RR": 1 / first, "AP": sum(precisions) / relevant if relevant else 0}
    found["nDCG"] = dcg(gains, 99) / dcg(ideal, 99) if relevant else 0
    found["Rprec"] = sum(g > 0 for g in gains[:relevant]) / relevant if relevant else 0
    for k in (1, 2, 10):
        hits = sum(g > 0 for g in gains[:k])
        found |= {f"RR@{k}": 1 / first if first <= k else 0, f"Success@{k}": float(hits > 0), f"P@{k}": hits / k}
        found |= {f"R@{k}": hits / relevant if relevant else 0}
        found |= {f"nDCG@{k}": dcg(gains, k) / dcg(ideal, k) if relevant else 0}
        top = ranking[:k]
        found |= {f"Judged@{k}": sum(d in grades for d in top) / len(top)}
    return found


SCORES = st.sampled_from(
    [0.0, -0.0, 1.0, 1.0 + 1e-9, 1.0 - 1e-12, 2.0, 16777216.0, 16777217.0, 1e39, 1e300, -1e300, 1e-300]
)
SCORED = st.dictionaries(st.sampled_from(["d", "d1", "d10", "d2", "D", "e", "é"]), SCORES, min_size=1)
GRADED = st.dictionaries(st.sampled_from(["d", "d1", "d10", "d2", "D", "f"]), st.integers(-1, 3), min_size=1)


@settings(max_examples=80, deadline=None)
@given(SCORED, GRADED)
def test_every_measure_is_what_brute_force_makes_of_the_one_ranking(run, grades):
    expected = brute_force(ranked(run), grades)
    means = score({"1": run}, {"1": grades}, list(expected)).means
    assert means == pytest.approx(expected, abs=1e-9)
    assert means["RR@10"] <= means["RR"] and (means["Success@1"] == 1) == (means["RR"] == 1)


@settings(max_examples=25, deadline=None)
@given(SCORED, GRADED)
def test_no_measure_depends_on_the_scores_but_for_the_ranking(run, grades):
    names = [
        "Compat",
        "Bpref",
        "infAP",
        "IPrec@0.1",
        "SetP",
        "SetF",
        "SetR",
        "RR(rel=2)",
        "RR(judged_only=True)",
        "AP@2",
    ]
    names += ["NumRet", "NumRel", "nDCG(judged_only=True)@2", "P(rel=2)@2", "Judged"]
    distinct = {d: float(-i) for i, d in enumerate(ranked(run))}
    of_scores, of_ranks = (score({"1": one}, {"1": grades}, names).means for one in (run, distinct))
    assert of_scores == of_ranks


def test_a_query_whose_grades_are_all_below_zero_is_scored():
    """trec_eval's nDCG never ends on it."""
    names = ["nDCG", "nDCG@2", "RR", "Bpref", "infAP", "R@2", "Judged@1"]
    means = score({"1": {"a": 1.0, "b": 2.0}}, {"1": {"b": -1, "c": -2}}, names).means
    assert means == dict.fromkeys(names, 0.0) | {"Judged@1": 1.0}


def test_a_run_of_which_nothing_is_judged_is_known():
    assert score({"q": {"a": 1.0}}, {"q": {"b": 1}}, ["RR"]).judged_documents == 0
    assert score({"q": {"a": 1.0}, "p": {"b": 1.0}}, {"q": {"a": 0}}, ["RR"]).judged_documents == 1


def test_unknown_measures_and_files_of_different_collections():
    with pytest.raises(UserError, match="unknown measure 'nDGC@10'"):
        score({"q": {"d": 1.0}}, {"q": {"d": 1}}, ["nDGC@10"])
    with pytest.raises(UserError, match="no query of the run is judged"):
        score({"q": {"d": 1.0}}, {"p": {"d": 1}})


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("nDCG@0", "cutoff is 0; it has to be at least 1"),  # else a C assertion ends Python
        ("Judged@0", "cutoff is 0"),
        ("RR(rel=0)", "rel is 0"),
        ("nDCG@99999999999", "fit 32 bits"),
        ("nDCG@-1", "unknown measure"),
        ("nDCG@1.5", "cutoff cannot be 1.5"),
        ("nDCG@True", "cutoff cannot be True"),
        ("RR(foo=1)", "no parameter foo; it has cutoff, rel, judged_only"),
        ("P", "needs cutoff; write it e.g. as P@10"),
        ("INST", r"needs max_rel; write it e.g. as INST\(max_rel=…\)"),
        ("SDCG", r"needs cutoff and max_rel; write it e.g. as SDCG\(cutoff=…,max_rel=…\)"),
        ("ERR@20", r"whole numbers as query ids, not 'q'.*leave the measure out"),
        ("nDCG(dcg='exp-log2')@5", "whole numbers as query ids"),
        ("alpha_nDCG@20", "cannot be computed .*leave it out"),  # of an absent library
        ("Accuracy", "cannot be computed .*division by zero"),  # of a query without anything irrelevant
    ],
)
def test_what_a_measure_lacks_is_one_line(measure, words):
    with pytest.raises(UserError, match=words) as error:
        score({"q": {"d": 1.0}}, {"q": {"d": 1}}, ["RR", measure])
    assert repr(measure) in str(error.value) and "\n" not in str(error.value) and "object at" not in str(error.value)


@pytest.mark.skipif(shutil.which("perl") is None, reason="gdeval is a Perl script")
def test_err_of_numbered_queries():
    run = {"1": {"d": 1.0, "e": 2.0}}
    assert score(run, {"1": {"d": 4}}, ["ERR@5"]).means["ERR@5"] == pytest.approx(15 / 16 / 2, abs=1e-4)
    with pytest.raises(UserError, match="grades up to 4, and query 1 has 5"):
        score(run, {"1": {"d": 5}}, ["ERR@5"])


@needs_data
@pytest.mark.parametrize(
    ("run", "published"),
    [
        (DATA / "passage" / "trec_dl_bm25_top100" / "trec_results_dl19.txt", ".5058"),
        (RUNS / "gpt-3.5-turbo_4096_100_PromptMode.RANK_GPT_dl19_2023-08-04T23-26-51.541203.txt", ".6799"),
        (RUNS / "gpt-3.5-turbo_4096_100_PromptMode.RANK_GPT_dl19_2023-08-04T23-51-44.794704.txt", ".6737"),
        (RUNS / "output_v2_aug_vicuna_7b_4096_100_PromptMode.RANK_GPT_dl19_2023-09-13T16-36-10.051205.txt", ".6682"),
    ],
)
def test_published_runs_have_their_published_score(run, published):
    qrels = read_qrels(DATA / "passage" / "trec_dl_qrels" / "qrels.dl19-passage.txt")
    scores = score(read_run(run), qrels, ["nDCG@10"])
    assert f"{scores.means['nDCG@10']:.4f}".lstrip("0") == published
    assert (scores.judged, scores.missing, scores.unjudged) == (43, 0, 0)
