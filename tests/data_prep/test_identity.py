"""Identity is what is shown: no two candidates of a task read alike, and no text has two grades, whatever the ids say."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.discover import discover
from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.scenarios import passage
from data_prep.scenarios.interactions import Interactions, Item
from data_prep.schema import read_tasks
from data_prep.sides import CONTRADICTED, LEAKED
from data_prep.sources import find_amazon, find_movielens, find_own, find_recbole, find_trec
from data_prep.tasks import nothing_dropped
from data_prep.work import Work
from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load
from iranker_verl.ranking.text import clean
from tests.data_prep.source_runs import run
from tests.data_prep.test_recommendation import made, read_events

SETTINGS = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
# Titles and how they are shown: several spellings of one, and titles of their own.
SHOWN = {
    "Heat": "Heat",
    " Heat": "Heat",
    "Heat\u2028": "Heat",
    "<b>Heat</b>": "Heat",
    "He&#97;t": "Heat",
    "Heat (1995)": "Heat (1995)",
    "Heat, Drama": "Heat, Drama",
    "Ame\u0301lie": "Am\u00e9lie",
    "Am\u00e9lie": "Am\u00e9lie",
    **{f"T{n}": f"T{n}" for n in range(8)},
}


def read_titles(path, dropped):
    for row, (id, title) in enumerate(json.loads(path.read_text()), 1):
        yield Item(id, title, row=row)


@SETTINGS
@given(
    st.lists(st.sampled_from(list(SHOWN)), min_size=4, max_size=20),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 19), st.integers(0, 9)), max_size=60),
    st.sampled_from(["uniform", "popularity", "bm25"]),
    st.sampled_from(["group", "time"]),
)
def test_no_candidate_reads_like_another_or_like_anything_that_the_user_touched(
    tmp_path_factory, titles, events, negatives, split
):
    folder = tmp_path_factory.mktemp("twins")
    (folder / "items").write_text(json.dumps([[f"i{n}", title] for n, title in enumerate(titles)]))
    touched = [(f"u{user}", f"i{item % len(titles)}", time) for user, item, time in events]
    touched += [("all", f"i{n}", 0) for n in range(len(titles))]
    (folder / "events").write_text("".join("\t".join(map(str, event)) + "\n" for event in touched))
    data = Interactions("rec-movie", (folder / "events",), (folder / "items",), read_events, read_titles)
    found, _ = made(data, Options(history=1, candidates=2, negatives=negatives, split=split), folder)
    shown = {f"i{n}": SHOWN[title] for n, title in enumerate(titles)}
    for task in found.values():
        assert len(set(task["candidates"])) == len(task["candidates"])
        assert not set(task["candidates"]) & set(task["context"].split("; "))
        own = {
            shown[item]
            for user, item, time in touched
            if user == task["group"] and (split == "group" or time <= task["time"])
        }
        assert not own & set(task["candidates"][1:])


@pytest.mark.parametrize(
    ("first", "second", "alike"),
    [
        (("Heat", "", ()), ("Heat", "", ()), True),
        (("Heat", "", ()), (" Heat ", "", ()), True),
        (("Heat", "1995", ()), ("Heat (1995)", "", ()), True),
        (("Heat", "", ("Drama",)), ("Heat, Drama", "", ()), True),
        (("A &amp; B", "", ()), ("A & B", "", ()), True),
        (("<i>Heat</i>", "", ()), ("Heat", "", ()), True),
        (("Heat<script>x()</script>", "", ()), ("Heat<!-- y -->", "", ()), True),
        (("a\u2028b", "", ()), ("a b", "", ()), True),
        (("Heat", "", ("unknown",)), ("Heat", "", ()), True),
        (("\ud83dHeat", "", ()), ("\ufffdHeat", "", ()), True),
        (("Heat", "1995", ()), ("Heat", "1986", ()), False),
        (("Heat", "", ()), ("heat", "", ()), False),
    ],
)  # fmt: skip
def test_items_that_are_shown_alike_are_one_item(tmp_path, first, second, alike):
    def read_two(path, dropped):
        yield from (
            Item(id, *given, row=n) for n, (id, given) in enumerate((("a", first), ("b", second), ("c", ("C", "", ()))))
        )

    (tmp_path / "events").write_text("u\tc\t0\nu\ta\t1\nu\tb\t2\nv\ta\t1\nw\tc\t1\n")
    data = Interactions("rec-movie", (tmp_path / "events",), (tmp_path / "events",), read_events, read_two)
    dropped = made(data, Options(history=1, candidates=2), tmp_path)[1]
    assert dropped.get("items: shown like another item", 0) == alike
    assert dropped.get("events: repeated item", 0) == alike


FILES = {
    "movies.dat": ("ratings.dat", "1::1::5::1\n", "1::A::War\n2::B::War\n1::{}::War\n"),
    "movies.csv": ("ratings.csv", "userId,movieId,rating,timestamp\n1,1,5,1\n", "movieId,title,genres\n1,A,War\n1,{},War\n"),
    "u.item": ("u.data", "1\t1\t5\t1\n", "1|A|||" + "|0" * 18 + "|1\n1|{}|||" + "|0" * 18 + "|1\n"),
    "ml.item": (
        "ml.inter",
        "user_id:token\titem_id:token\ttimestamp:float\n1\t1\t1\n",
        "item_id:token\ttitle:token_seq\n1\tA\n1\t{}\n",
    ),
    "meta_Video_Games.json": (
        "Video_Games.json",
        '{"reviewerID": "u", "asin": "1", "unixReviewTime": 1}\n',
        '{"asin": "1", "title": "A"}\n{"asin": "1", "title": "{}"}\n',
    ),
    "x.items.csv": ("x.csv", "user_id,item_id,timestamp\nu,1,1\n", "item_id,title\n1,A\n1,{}\n"),
    "x.items.jsonl": ("x.csv", "user_id,item_id,timestamp\nu,1,1\n", '{"item_id": 1, "title": "A"}\n{"item_id": "1", "title": "{}"}\n'),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("again", "refused"), [("A", False), ("Other", True)])
def test_an_item_with_two_texts_is_refused_by_file_and_row(tmp_path, name, again, refused):
    events, content, items = FILES[name]
    (tmp_path / events).write_text(content)
    (tmp_path / name).write_text(items.replace("{}", again))
    (source,) = discover(tmp_path).sources
    if refused:
        with pytest.raises(
            UserError, match=rf"{name} row \d: item '1' is 'Other.*', but 'A.*' in row \d; correct or remove"
        ):
            source.cut(Options(), Work(tmp_path / "work"))
    else:
        source.cut(Options(), Work(tmp_path / "work"))


TREC = {
    "x.qrels.txt": "1 0 d0 1\n1 0 d1 0\n",
    "x.run": "1 Q0 d0 1 9 r\n1 Q0 d1 2 8 r\n",
    "x.topics.tsv": "1\twhat\n",
    "collection.tsv": "d0\tzero\nd1\tone\n",
}
BEIR = {
    "qrels/test.tsv": "query-id\tcorpus-id\tscore\n1\td0\t1\n1\td1\t0\n",
    "bm25.run": TREC["x.run"],
    "queries.jsonl": '{"_id": "1", "text": "what"}\n',
    "corpus.jsonl": '{"_id": "d0", "text": "zero"}\n{"_id": "d1", "text": "one"}\n',
}


@pytest.mark.parametrize(
    ("files", "name", "line", "message"),
    [
        (TREC, "x.topics.tsv", "1\twhat\n", None),
        (TREC, "x.topics.tsv", "1\twho\n", "topics.tsv row 2: '1' is 'who', but 'what' in row 1"),
        (TREC, "collection.tsv", "d1\tone\n", None),
        (TREC, "collection.tsv", "d1\ttwo\n", "collection.tsv row 3: 'd1' is 'two', but 'one' in row 2"),
        (TREC, "collection.tsv", "d7\ta\nd7\tb\n", None),  # not needed
        (TREC, "x.run", "1 Q0 d0 3 7 r\n", "x.run row 3: passage 'd0' occurs twice"),
        (TREC, "x.qrels.txt", "1 0 d0 1\n", None),
        (TREC, "x.qrels.txt", "1 0 d0 2\n", "row 3: passage 'd0' of query '1' has a second grade"),
        (
            BEIR,
            "queries.jsonl",
            '{"_id": "1", "text": "who"}\n',
            "queries.jsonl row 2: '1' is 'who', but 'what' in row 1",
        ),
        (
            BEIR,
            "corpus.jsonl",
            '{"_id": "d1", "text": "two"}\n',
            "corpus.jsonl row 3: 'd1' is 'two', but 'one' in row 2",
        ),
        (BEIR, "corpus.jsonl", '{"_id": "d1", "title": "", "text": "one"}\n', None),
        (BEIR, "qrels/test.tsv", "1\td0\t3\n", "row 4: passage 'd0' of query '1' has a second grade"),
    ],
)
def test_an_id_with_two_texts_in_a_test_collection_is_refused(tmp_path, files, name, line, message):
    for file, content in files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(content + line * (file == name))
    if message:
        with pytest.raises(UserError, match=message):
            run(find_trec, tmp_path)
    else:
        assert len(run(find_trec, tmp_path)[0]) == 1


TEXTS = st.sampled_from(["a", " a", "a\u2028", "b", "b  c", "b c", "d"])


@given(st.lists(st.tuples(TEXTS, st.sampled_from([0.0, 1.0, 2.0])), min_size=1, max_size=8))
def test_passages_that_read_alike_have_the_best_of_their_grades(rows):
    one = passage.graded_query("1", "q", [(str(n), *row) for n, row in enumerate(rows)])
    assert [candidate.text for candidate in one.passages] == [clean(text) for text, _ in rows]
    best = {clean(text): max(g for t, g in rows if clean(t) == clean(text)) for text, _ in rows}
    assert one.relevance == tuple(best[clean(text)] for text, _ in rows)
    assert one.raised == sum(best[clean(text)] != grade for text, grade in rows)
    dropped = nothing_dropped()
    drafts = list(passage.draft_or_count("x", one, None, passage.unfit_query(one), dropped))
    assert len(drafts) == (len(set(one.relevance)) > 1)
    if drafts:
        assert +dropped["x"] == +Counter({passage.RAISED: one.raised})


@pytest.mark.parametrize(
    "names", [("a", "a "), ("a b", "a  b"), ("a\u2028b", "a b"), ("A", "a"), ("a", "a\t")]
)  # fmt: skip
def test_llms_that_are_shown_alike_are_refused_or_one(tmp_path, names):
    rows = [
        json.dumps({"query": f"q{n}", "llm": llm, "effect": place, "cost": 1})
        for n in range(4)
        for place, llm in enumerate(names)
    ]
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match=r"both shown as|use one spelling|1 LLM"):
        run(find_own, path)


def test_the_descriptions_of_llms_may_not_make_two_look_alike(tmp_path):
    rows = [
        "query,llm,effect,cost,description",
        *(f"q{n},{llm},{e},,{d}" for n in range(4) for llm, e, d in (("a", 1, "b: c"), ("a: b", 0, "c"))),
    ]
    (tmp_path / "r.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(UserError, match="the LLMs 'a' and 'a: b' are both shown as"):
        run(find_own, tmp_path, datasets=["r-performance"])


@pytest.mark.parametrize("find", [find_amazon, find_movielens, find_recbole])
def test_nothing_is_found_in_an_empty_folder(tmp_path, find):
    assert not list(find([], tmp_path))


def test_a_composed_letter_and_its_parts_are_one_text():
    query = passage.graded_query("q", "q", [("a", "caf\u00e9", 1.0), ("b", "cafe\u0301", 0.0), ("c", "tea", 0.0)])
    assert [one.text for one in query.passages] == ["caf\u00e9", "caf\u00e9", "tea"]
    assert query.relevance == (1.0, 1.0, 0.0)


def own_passages(folder, rows):
    (folder / "faq.csv").write_text(
        "query_id,query,passage,relevance\n" + "".join(f"{id},{q},{p},{g}\n" for id, q, p, g in rows)
    )
    return "faq"


def msmarco_in_two_files(folder, rows):
    """The queries of even ids in one file, of odd ones in another, padded to five passages."""
    for part in (0, 1):
        lines = []
        for id in sorted({id for id, *_ in rows if id % 2 == part}):
            own = [row for row in rows if row[0] == id]
            texts = [p for _, _, p, _ in own] + [f"{id} filler {n}" for n in range(5 - len(own))]
            flags = [g for *_, g in own] + [0] * (5 - len(own))
            passages = [{"is_selected": f, "passage_text": t} for f, t in zip(flags, texts, strict=True)]
            lines.append(json.dumps({"query": own[0][1], "passages": passages}))
        (folder / f"{'ab'[part]}.jsonl").write_text("\n".join(lines) + "\n")
    return "passage-5"


def wikiqa(folder, rows):
    header = "QuestionID\tQuestion\tDocumentID\tDocumentTitle\tSentenceID\tSentence\tLabel\n"
    lines = [f"Q{id}\t{q}\tD1\tt\tS{n}\t{p}\t{g}\n" for n, (id, q, p, g) in enumerate(rows)]
    (folder / "all.tsv").write_text(header + "".join(lines))
    return "wikiqa"


@pytest.mark.parametrize("write", [own_passages, msmarco_in_two_files, wikiqa])
@pytest.mark.parametrize(
    ("second", "kept"),
    [
        ((2, "what is wifi", {"a net": 0, "a grape": 1}), False),  # the opposite
        ((2, "What is  WIFI", {"a net": 0, "a grape": 1}), False),
        ((2, "what is wifi", {"a net ": 0, "another": 1}), False),  # one passage in common is enough
        ((3, "what is wifi", {"a net": 0, "a grape": 1}), False),
        ((2, "what is wifi", {"a net": 1, "a grape": 0}), True),  # the same judgement again
        ((2, "what is wifi", {"a mesh": 1, "a vine": 0}), True),
        ((2, "what is wi fi", {"a net": 0, "a grape": 1}), True),
    ],
)
def test_one_query_under_two_ids_with_two_grades_for_a_passage_is_dropped_and_counted(tmp_path, write, second, kept):
    rows = [(1, "what is wifi", "a net", 1), (1, "what is wifi", "a grape", 0)]
    rows += [(second[0], second[1], p, g) for p, g in second[2].items()]
    for n in range(10, 20):
        rows += [
            (n, f"number {n} of them {n * 7}", f"right {n}", 1),
            (n, f"number {n} of them {n * 7}", f"wrong {n}", 0),
        ]
    (tmp_path / "raw").mkdir()
    dataset = write(tmp_path / "raw", rows)
    made_of = prepare(tmp_path / "raw", tmp_path / "out", load("label"), Options(near_duplicate=1), [dataset])[
        "datasets"
    ]
    assert made_of[dataset]["train"] + made_of[dataset]["test"] == 10 + 2 * kept
    assert made_of[dataset]["dropped"] == ({} if kept else {CONTRADICTED: 2})


def write_users(folder, *titles):
    """Users in pairs with the same events, by other ids; ``titles`` of the items that the second of a pair touches."""
    folder.mkdir()
    items = [f"i{n}\tItem {n}" for n in range(30)] + [f"j{n}\t{title}" for n, title in enumerate(titles)]
    (folder / "ml.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *items]) + "\n")
    events = [f"u{u}\ti{(u + n) % 30}\t{n}" for u in range(30) for n in range(4)]
    events += [f"v{u}\t{'j' if titles else 'i'}{(u + n) % 30}\t{n}" for u in range(30) for n in range(4)]
    (folder / "ml.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *events]) + "\n")


def shown_in(out):
    """The history and the positive of every task of both sides, by text."""
    return [
        [(task.context, task.candidates[task.target].text) for task in read_tasks(out / f"{side}.parquet")]
        for side in ("train", "test")
    ]


@pytest.mark.parametrize("titles", [(), [f" Item  {n}" for n in range(30)]], ids=["one id", "one text"])
@pytest.mark.parametrize("seed", range(3))
def test_two_users_with_one_history_and_one_positive_are_on_one_side(tmp_path, seed, titles):
    write_users(tmp_path / "raw", *titles)
    options = Options(history=3, candidates=3, seed=seed)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", load("label"), options)
    train, test = shown_in(tmp_path / "out")
    assert len(train) == 48 and len(test) == 12 and not set(train) & set(test)
    assert LEAKED not in manifest["datasets"]["rec-movie"]["dropped"]


def test_an_earlier_positive_that_a_test_user_has_too_leaves_its_user_out(tmp_path):
    """Each user's earlier item and positive are the next user's last ones."""
    write_users(tmp_path / "raw")
    options = Options(history=1, candidates=3, tasks_per_user=2)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", load("label"), options)
    train, test = shown_in(tmp_path / "out")
    assert test and train and not set(train) & set(test)
    assert manifest["datasets"]["rec-movie"]["dropped"][LEAKED] > 0


def test_users_with_one_history_and_other_positives_stay(tmp_path):
    write_users(tmp_path / "raw")
    events = (tmp_path / "raw" / "ml.inter").read_text()
    last = "".join(f"v{u}\ti{(u + 9) % 30}\t9\n" for u in range(30))
    first = "".join(f"u{u}\ti{(u + 10) % 30}\t9\n" for u in range(30))
    (tmp_path / "raw" / "ml.inter").write_text(events + last + first)
    manifest = prepare(tmp_path / "raw", tmp_path / "out", load("label"), Options(history=3, candidates=3))
    assert LEAKED not in manifest["datasets"]["rec-movie"]["dropped"]
