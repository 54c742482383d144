"""The data card: its numbers agree with a few plain lines of Python, and its page holds all of itself."""

import json
import random
import re

import numpy as np
import pyarrow as pa
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_folder import LLMS, row, rows, write

from data_prep.card.card import inspect, render, write_card
from data_prep.card.histogram import Histogram
from data_prep.card.lengths import COUNTED, Lengths
from data_prep.card.popularity import Popularity, gini
from data_prep.checks.columns import best, leaves
from data_prep.schema import SCHEMA
from iranker_verl.cli import inspect as cli
from iranker_verl.errors import UserError


@pytest.fixture(scope="module")
def sides():
    return rows(120), rows(60, start=120)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sides):
    dropped = {"rec-movie": {"users: fewer than 21 items": 20, "events: repeated item": 7}}
    write(tmp_path_factory.mktemp("card") / "prepared", *sides, dropped=dropped)
    return tmp_path_factory.getbasetemp() / "card0" / "prepared"


@pytest.fixture(scope="module")
def content(folder):
    return inspect(folder)


# ----------------------------------------------------------------------------------------------------------- numbers


def test_rows_tasks_and_texts(content, sides):
    train, test = sides
    assert content["splits"] == {"train": {"rows": 120}, "test": {"rows": 60}}
    assert list(content["datasets"]) == ["passage-5", "rec-movie", "router-cost"]
    for name, found in content["datasets"].items():
        own = [r for r in train + test if r["data_source"] == name]
        assert found["tasks"] == found["rows"] == {"train": 40, "test": 20}
        assert found["scenario"] == own[0]["extra_info"]["scenario"] and found["kinds"] == ["episode"]
        assert found["candidates"]["p50"] == 4
        texts = [len(t) for r in own for t in r["reward_model"]["ground_truth"]["candidates"]]
        contexts = [len(r["extra_info"]["context"]) for r in own]
        for values, summary in ((texts, "candidates"), (contexts, "context")):
            numbers = found["characters"][summary]
            assert numbers["max"] == max(values) and numbers["n"] == len(values)
            assert numbers["mean"] == pytest.approx(sum(values) / len(values), abs=0.01)
    assert content["datasets"]["rec-movie"]["history"]["p50"] == 5


def test_shares_of_what_was_dropped(content):
    # 60 users became tasks and 20 did not; of events nobody knows how many there were
    assert content["datasets"]["rec-movie"]["dropped"] == [
        ["users: fewer than 21 items", 20, 0.25],
        ["events: repeated item", 7, None],
    ]
    assert content["datasets"]["passage-5"]["dropped"] == []


def test_prompts_in_characters(content, sides):
    lengths = [[sum(len(m["content"]) for m in r["prompt"]) for r in side] for side in sides]
    found = content["lengths"]
    assert found["unit"] == "characters" and found["rows"] == found["counted"] == 180 and found["limit"] is None
    longest = max(lengths[0] + lengths[1])
    side = 0 if longest in lengths[0] else 1
    assert found["longest"] == {
        "length": longest,
        "file": ("train.parquet", "test.parquet")[side],
        "row": lengths[side].index(longest),
    }
    for name, values in zip(("train", "test"), lengths, strict=True):
        bins = found["splits"][name]["bins"]
        assert bins == np.histogram(values, found["edges"])[0].tolist() and sum(bins) == len(values)


def test_positions(content, sides):
    for split, side in zip(("train", "test"), sides, strict=True):
        (found,) = [p for p in content["positions"] if p["split"] == split]
        places = [r["reward_model"]["ground_truth"]["target"] for r in side]
        assert found["counts"] == [places.count(i) for i in range(4)] and 0 < found["p"] <= 1


def test_routers(content, sides):
    counts = {llm: {"train": 0, "test": 0} for llm in LLMS}
    for split, side in zip(("train", "test"), sides, strict=True):
        for one in side:
            if one["data_source"] == "router-cost":
                best_place = one["reward_model"]["ground_truth"]["target"]
                counts[one["extra_info"]["candidate_ids"][best_place]][split] += 1
    found = content["routers"]
    assert list(found) == ["router-cost"]
    assert {one["llm"]: {"train": one["train"], "test": one["test"]} for one in found["router-cost"]} == counts
    assert all(one["text"] == f"{one['llm']}: an LLM" for one in found["router-cost"])


def test_an_llm_that_is_never_the_best_is_shown(tmp_path):
    made = [row("router-cost", i, ids=LLMS, context=f"q{i} w{i}", target=0) for i in range(8)]
    found = inspect_of(tmp_path, made, [])["routers"]["router-cost"]
    assert [(one["llm"], one["train"]) for one in found] == [("llm-0", 8), ("llm-1", 0), ("llm-2", 0), ("llm-3", 0)]


def inspect_of(tmp_path, train, test, **options):
    write(tmp_path / "some", train, test, **options)
    return inspect(tmp_path / "some")


def test_what_occurs_again(tmp_path):
    made = rows(9)
    twice = [made[0], row("passage-5", 50, context="a b c d", texts=["same", "same", "x", "y"])]
    again = row("passage-5", 51, context="a b c d", texts=["same", "same", "x", "y"])
    found = inspect_of(tmp_path, [*made, *twice], [again])["repeats"]
    assert found == {
        "prompts": {"train": 1, "test": 0},
        "prompts_on_both_sides": 1,
        "rows_with_equal_texts": {"train": 1, "test": 1},
    }


def test_a_sample_of_each_dataset(content, sides):
    found = content["samples"]
    assert list(found) == list(content["datasets"])
    for name, sample in found.items():
        assert sample["file"] == "test.parquet"
        one = sides[1][sample["row"]]
        assert one["data_source"] == name and sample["prompt"] == one["prompt"]
        place = one["reward_model"]["ground_truth"]["target"]
        assert [c["best"] for c in sample["candidates"]] == [i == place for i in range(4)]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(0, 320))
def test_histogram(values, limit):
    found = Histogram()
    for part in (values[::2], values[1::2]):
        found.add(np.array(part, np.int64))
    summary = found.summary()
    for q in (5, 50, 95):
        assert summary[f"p{q}"] == np.quantile(values, q / 100, method="inverted_cdf")
    assert (summary["n"], summary["max"]) == (len(values), max(values))
    assert found.above(limit) == sum(v > limit for v in values)
    assert found.binned([0, 10, 50, 400]) == np.histogram(values, [0, 10, 50, 400])[0].tolist()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=12), st.integers(0, 10))
def test_gini_by_its_definition(counts, unseen):
    every = counts + [0] * unseen
    difference = np.abs(np.subtract.outer(every, every)).mean() / (2 * np.mean(every))
    assert gini(np.array(counts), len(every)) == pytest.approx(difference)


def popular(split_rows):
    found = Popularity()
    for split, made in split_rows:
        columns = leaves(pa.Table.from_pylist(made, schema=SCHEMA))
        found.add(split, columns, *best(columns))
    return found.result()


def test_popularity_by_hand():
    train = [
        row("rec-movie", 0, ids=["a", "b"], target=0, history=["c", "d"]),
        row("rec-movie", 1, ids=["b", "a"], target=1, history=["c"]),
    ]
    # in training a is known twice, c twice, d once, b never
    test = [
        row("rec-movie", 2, ids=["a", "b", "c", "d"], target=0),  # above b and d, as c: 2.5 of 3
        row("rec-movie", 3, ids=["b", "new"], target=0),  # both unknown: half
        row("passage-5", 4),  # nothing to do with it
    ]
    (name,), (found,) = zip(*popular([("train", train), ("test", test)]).items(), strict=True)
    assert name == "rec-movie" and found["items"] == 5
    assert found["auc"] == pytest.approx((2.5 / 3 + 0.5) / 2, abs=1e-4)
    # positives: a three times, b once, c, d and new never
    assert found["positives"]["gini"] == pytest.approx(gini(np.array([3, 1]), 5), abs=1e-4)
    assert found["positives"]["top"] == {"1%": 0.75, "10%": 0.75}  # of five items, one at least
    # known twice: a (best), c; once: d; never: b, b (best), new
    assert found["curve"] == [[0.0, 0.0], [0.25, 0.5], [0.5, 0.5], [1.0, 1.0]]


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_auc_by_brute_force(seed):
    dice = random.Random(seed)
    items = [f"i{i}" for i in range(12)]

    def some(number):
        shown = dice.sample(items, dice.randint(2, 5))
        past = dice.choices(items, k=dice.randint(0, 4))
        dataset = dice.choice(["rec-movie", "rec-game"])
        return row(dataset, number, ids=shown, target=dice.randrange(len(shown)), history=past)

    train, test = [some(i) for i in range(8)], [some(i) for i in range(100, 106)]
    found = popular([("train", train), ("test", test)])
    for dataset in ("rec-movie", "rec-game"):
        known = [x for r in train if r["data_source"] == dataset for x in chosen(r)]
        shares = []
        for one in test:
            if one["data_source"] == dataset and any(r["data_source"] == dataset for r in train):
                ids, target = one["extra_info"]["candidate_ids"], one["reward_model"]["ground_truth"]["target"]
                fame = known.count(ids[target])
                others = [known.count(i) for place, i in enumerate(ids) if place != target]
                shares.append(sum((fame > o) + (fame == o) / 2 for o in others) / len(others))
        auc = found.get(dataset, {}).get("auc")
        assert auc == (pytest.approx(np.mean(shares), abs=1e-4) if shares else None)


def chosen(one):
    info = one["extra_info"]
    return [*info["history_ids"], info["candidate_ids"][one["reward_model"]["ground_truth"]["target"]]]


# ------------------------------------------------------------------------------------------------------------ tokens


def prompts(texts):
    return pa.array([[{"role": "user", "content": text}] for text in texts], SCHEMA.field("prompt").type)


def spaces(messages):
    return sum(len(m["content"].split()) for m in messages)


def test_tokens_and_the_limit():
    found = Lengths(5, spaces, 3)
    found.add("train", 0, prompts(["a", "a b", "a b c"]))
    found.add("test", 0, prompts(["a b c d", "aaaaaaaaaaaaaaaaaaaaaaaaa"]))
    result = found.result()
    assert result["unit"] == "tokens" and result["counted"] == 5 and result["over"] == 1 and result["limit"] == 3
    assert result["longest"] == {"length": 4, "file": "test.parquet", "row": 0}
    assert result["splits"]["train"]["p50"] == 2


def test_of_many_prompts_a_sample_and_the_longest():
    count = COUNTED * 3
    texts = ["a b"] * count
    texts[17], texts[COUNTED + 1] = "a b c d e f g", "a b c d e f g h"  # neither is a third one
    calls = []

    def counting(messages):
        calls.append(messages)
        return spaces(messages)

    found = Lengths(count, counting, 7)
    for start in range(0, count, 5000):
        found.add("train", start, prompts(texts[start : start + 5000]))
    result = found.result()
    assert result["counted"] == COUNTED and result["rows"] == count and len(calls) == COUNTED + 200
    assert result["longest"] == {"length": 8, "file": "train.parquet", "row": COUNTED + 1}


def test_a_message_without_content(tmp_path):
    made = rows(9)
    made[4]["prompt"][0]["content"] = None
    write(tmp_path, made, [])
    with pytest.raises(UserError, match=r"train\.parquet row 4: a message has no content"):
        inspect(tmp_path)


# -------------------------------------------------------------------------------------------------------------- page


def test_the_page_asks_for_nothing(content, tmp_path):
    write_card(tmp_path / "card.html", content)
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert page.lstrip().startswith("<!doctype html>") and "</html>" in page
    for fetching in ("http:", "https:", "src=", "<link", "<script", "@import", r"url\((?!#)"):
        assert not re.search(fetching, page)
    assert page.count("<svg") == 4 and 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert re.findall(r"#0000[0-9a-f]{2}\b", page) == []  # all colours are the page's variables
    assert json.loads((tmp_path / "card.json").read_text()) == {"made_by": "iranker-verl"} | content
    assert render(content) == page


def test_the_page_shows_it_all(content):
    page = render(content)
    for check in content["checks"]:
        assert f"<strong>{check['name']}</strong>" in page
    assert page.count(">holds</span>") == 10 and page.count(">no case</span>") == 1 and "fails</span>" not in page
    assert "users: fewer than 21 items" in page and "25.0 %" in page
    for name in (*content["datasets"], content["provenance"]["data_hash"], "raw.dat", *LLMS):
        assert name in page


def test_a_failing_check_is_seen(tmp_path):
    train, test = rows(30), rows(30, start=30)
    test[0]["extra_info"]["group"] = train[0]["extra_info"]["group"]
    page = render(inspect_of(tmp_path, train, test))
    assert ">fails</span>" in page and "fails: groups" in page and "&#39;user 0&#39; of rec-movie is in" in page


def test_texts_stay_texts(tmp_path):
    nasty = "</style><script>alert('$x^2$ & {{ 7*7 }}')</script>"
    made = [
        row("rec-movie", 0, ids=["a", "b"], texts=[nasty, "b"], context=nasty, history=["c"]),
        row("router-cost", 1, ids=[nasty, "other"], context=nasty),
    ]
    content = inspect_of(tmp_path, made, [], dropped={"rec-movie": {nasty: 1}})
    page = render(content)
    assert "<script" not in page and "49" not in page.replace(content["provenance"]["data_hash"], "")[:2000]
    assert "&lt;script&gt;" in page and "{{ 7*7 }}" in page


@pytest.mark.parametrize("kind", ["states", "graded", "one side", "one row"])
def test_other_folders(tmp_path, kind):
    dice = random.Random(1)
    if kind == "states":
        made = [
            row("rec-game", i, kind="state", ids=[f"{i}-{j}" for j in range(size)], target=dice.randrange(size))
            for i in range(6)
            for size in (2, 3, 4)
        ]
        content = inspect_of(tmp_path, made, rows(3, start=99), rows="states")
        assert {p["candidates"] for p in content["positions"] if p["split"] == "train"} == {2, 3, 4}
    elif kind == "graded":
        content = inspect_of(tmp_path, [], [row("passage-5", 1, relevance=[0.0, 3.0, 1.5, 3.0])], split="test")
        assert [c["best"] for c in content["samples"]["passage-5"]["candidates"]] == [False, True, False, True]
    elif kind == "one side":
        content = inspect_of(tmp_path, [], rows(12), split="test")
        assert content["popularity"]["rec-movie"]["auc"] is None or content["splits"]["train"]["rows"] == 0
    else:
        content = inspect_of(tmp_path, rows(1), [])
    page = render(content)
    assert "</html>" in page and json.loads(json.dumps(content)) == content


# ------------------------------------------------------------------------------------------------------- bad folders


def test_folders_that_are_none(tmp_path, sides):
    with pytest.raises(UserError, match="no such file"):
        inspect(tmp_path / "none")
    folder = tmp_path / "some"
    write(folder, *sides)
    manifest = json.loads((folder / "manifest.json").read_text())
    for missing in ("options", "files", "datasets", "template_hash"):
        (folder / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != missing}))
        with pytest.raises(UserError, match="not a manifest of this version"):
            inspect(folder)
    (folder / "manifest.json").write_text("[1]")
    with pytest.raises(UserError, match="not a JSON object"):
        inspect(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "test.parquet").write_bytes((folder / "test.parquet").read_bytes()[:500])
    with pytest.raises(UserError, match=r"test\.parquet: unreadable"):
        inspect(folder)


def test_places_that_cannot_be_written(tmp_path, content):
    with pytest.raises(UserError, match=r"the card is HTML; give a file name like card\.html"):
        write_card(tmp_path / "card.json", content)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="the folder cannot be made"):
        write_card(tmp_path / "file" / "card.html", content)
    write_card(tmp_path / "new" / "card.html", content)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["card.html", "card.json"]


# ------------------------------------------------------------------------------------------------------ command line


def test_inspect_on_the_console(folder, tmp_path, capsys):
    cli.inspect(folder, None, None, tmp_path / "c.html")
    out = capsys.readouterr().out
    assert (tmp_path / "c.html").is_file() and (tmp_path / "c.json").is_file()
    for part in ("Datasets", "Prompts, in characters", "Popularity", "llm-3", "Left out", "near-duplicates"):
        assert part in out
    with pytest.raises(UserError, match="give --tokenizer"):
        cli.inspect(folder, None, 100, None)


class Words:
    """Stands in for a model folder's tokenizer."""

    def __init__(self, model):
        self.model = model

    def encode(self, messages):
        if self.model.name == "strict":
            raise ValueError("roles must alternate\nand so on")
        return "".join(m["content"] for m in messages).split()


def test_inspect_with_a_tokenizer(folder, tmp_path, capsys, sides, monkeypatch):
    monkeypatch.setattr("iranker_verl.inference.engine.ChatTokenizer", Words)
    lengths = [len(r["prompt"][0]["content"].split()) for side in sides for r in side]
    limit = sorted(lengths)[100]
    cli.inspect(folder, tmp_path / "model", limit, tmp_path / "c.html")
    found = json.loads((tmp_path / "c.json").read_text())["lengths"]
    assert found["unit"] == "tokens" and found["longest"]["length"] == max(lengths)
    assert found["over"] == sum(length > limit for length in lengths) > 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"over the limit of {limit}: {found['over']} of the 180 counted" in out
    assert f"are over the limit of {limit}" in (tmp_path / "c.html").read_text()
    with pytest.raises(
        UserError, match=r"strict: its chat template does not take these prompts \(roles must alternate\)"
    ):
        cli.inspect(folder, tmp_path / "strict", None, tmp_path / "c.html")


def test_validate_on_the_console(folder, tmp_path, capsys):
    cli.validate([folder], None, None, False)
    assert capsys.readouterr().out.count(" rows, ok") == 2
    made = rows(6)
    made[2]["data_source"] = "[red]"  # no markup, but not a dataset that its prompt was made for
    made[3]["data_source"] = ""
    write(tmp_path / "bad", made, [])
    with pytest.raises(typer.Exit) as exit:
        cli.validate([tmp_path / "bad" / "train.parquet"], None, None, False)
    assert exit.value.exit_code == 1
    out = capsys.readouterr().out
    assert "not fit for training" in out and "data_source: not a name" in out and "row 3: ''" in out
    with pytest.raises(typer.Exit):
        cli.validate([tmp_path / "bad"], None, None, True)
    reports = json.loads(capsys.readouterr().out)
    assert [(r["rows"], r["ok"]) for r in reports] == [(0, True), (6, False)]
    assert reports[1]["problems"][0]["first"] == [[3, "''"]]
    with pytest.raises(UserError, match="no Parquet file"):
        cli.validate([tmp_path], None, None, False)
