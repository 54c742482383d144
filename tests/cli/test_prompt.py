"""`iranker prompt`: what it prints is what the model sees, and a mistake is one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.schema import SCHEMA
from iranker_verl.cli.prompt import EXAMPLES, app
from iranker_verl.ranking import DATASETS, Candidate, Elimination, RankingTask
from iranker_verl.ranking.templates import available, load
from tests import command, tiny_models


def run(*arguments):
    """Standard output and standard error of ``iranker prompt …``."""
    result = command.invoke(app, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def refused(*arguments):
    return command.refused(app, *arguments)


def task(number, dataset):
    candidates = tuple(Candidate(f"i{j}", f"{dataset} {number} no. {j} \u2028 {{n}}") for j in range(4))
    return RankingTask.with_positive(f"t{number}", DATASETS[dataset], dataset, f"context {number}", candidates, "i2")


TASKS = [task(0, "rec-movie"), task(1, "passage-7"), task(2, "rec-movie"), task(3, "passage-7")]


def write(path, tasks, made_with):
    """Rows as `iranker prepare` writes them, as far as this command reads them."""
    rows = [
        {
            "data_source": t.dataset,
            "reward_model": {"ground_truth": t.ground_truth()},
            "extra_info": {
                "task_id": t.id,
                "scenario": t.scenario,
                "context": t.context,
                "candidate_ids": [c.id for c in t.candidates],
                "template_id": made_with[0],
                "template_hash": made_with[1],
            },
        }
        for t in tasks
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


@pytest.fixture
def data(tmp_path):
    made_with = (load("think-label").id, load("think-label").hash)
    write(tmp_path / "test.parquet", TASKS, made_with)
    write(tmp_path / "train.parquet", TASKS[::-1], made_with)
    return tmp_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("transformers")
    return tiny_models.save(tmp_path_factory.mktemp("model"))


# ---------------------------------------------------------------- list


def test_list():
    out, _ = run("list")
    lines = out.splitlines()
    assert lines[0].split() == ["id", "kind", "answer", "hash", "frame"]
    assert [line.split()[0] for line in lines[1:]] == available()
    for line in lines[1:]:
        t = load(line.split()[0])
        assert line.split()[1:4] == [t.kind, t.answer, t.hash]


def test_the_frame_is_what_is_not_data():
    rows = {r["id"]: r for r in json.loads(run("list", "--json")[0])}
    assert list(rows) == available()
    assert rows["label"]["frame"] == [
        len("\nCandidates:\n\nExclude the worst:"),
        len("History: \nCandidates:\n\nExclude the worst:"),
    ]
    t = load("think-label")
    empty = t.user["passage"].replace("{context}", "").replace("{candidates}", "")
    assert rows["think-label"]["frame"][0] <= len(t.system) + len(empty) <= rows["think-label"]["frame"][1]


# ---------------------------------------------------------------- render


def test_the_built_in_example():
    out, err = run("render")
    assert out == (
        "[user]\nHistory: The Lantern Keeper (1994); Salt Road (1999); Nine Rivers (2001)\nCandidates:\n"
        "[A] Low Tide (2002)\n[B] Robot Gala (1987)\n[C] Mr. Biscuit (1996)\nExclude the worst:\n"
    )
    assert len(err.splitlines()) == 1
    assert "template label" in err and load("label").hash in err and "rec-movie" in err
    assert f"{len(out) - len('[user]') - 2} characters" in err and "--tokenizer" in err


def test_every_template_and_dataset_has_a_built_in_example():
    assert list(EXAMPLES) == list(DATASETS)
    for name in available():
        for dataset in DATASETS:
            out, err = run("render", "--template", name, "--dataset", dataset)
            context, texts = EXAMPLES[dataset]
            assert context in out and sum(text in out for text in texts) == (2 if "pair" in load(name).kind else 3)
            assert name in err and dataset in err and "[user]\n" in out
            assert ("[system]\n" in out) == (load(name).system is not None)


def test_a_row_of_prepared_data_is_shown_with_its_own_template(data):
    template = load("think-label")
    for arguments, shown in (
        ([], TASKS[0]),
        (["--row", 3], TASKS[3]),
        (["--split", "train", "--row", 0], TASKS[3]),
        (["--dataset", "passage-7"], TASKS[1]),
        (["--dataset", "rec-movie", "--row", 1], TASKS[2]),
    ):
        content = json.loads(run("render", "--data", data, *arguments, "--json")[0])
        assert content["messages"] == template.messages(Elimination(shown))
        assert (content["task_id"], content["dataset"]) == (shown.id, shown.dataset)
        assert (content["template_id"], content["template_hash"]) == (template.id, template.hash)
        assert (content["step"], content["steps"], content["tokens"]) == (1, 3, None)
        assert content["characters"] == sum(len(m["content"]) for m in content["messages"])


def test_another_template_than_the_datas_is_said(data):
    out, err = run("render", "--data", data, "--template", "label")
    assert "[user]\nHistory: context 0\n" in out
    made = load("think-label")
    assert f"note: {data / 'test.parquet'} row 0 was made with template think-label ({made.hash})" in err
    assert "note" not in run("render", "--data", data, "--template", "think-label")[1]


def test_later_steps(data):
    for step, texts in ((1, 4), (2, 3), (3, 2)):
        content = json.loads(run("render", "--data", data, "--step", step, "--json")[0])
        lines = content["messages"][-1]["content"].split("\n")[-texts:]
        assert lines == [f"[{'ABCD'[j]}] {c.text}" for j, c in enumerate(TASKS[0].candidates[:texts])]
    assert "3 step(s)" in refused("render", "--data", data, "--step", 4)
    assert "3 step(s)" in refused("render", "--data", data, "--step", 10**9)
    assert "1 step(s)" in refused("render", "--template", "direct-label", "--step", 2)


def test_with_a_tokenizer_it_is_the_very_text_and_its_tokens(model, data):
    from iranker_verl.inference.engine import ChatTokenizer

    messages = load("think-label").messages(Elimination(TASKS[1]))
    wanted = (
        "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages) + "<|im_start|>assistant\n"
    )
    tokens = len(ChatTokenizer(model).encode(messages))
    arguments = ["render", "--data", data, "--row", 1, "--tokenizer", model]
    out, err = run(*arguments)
    assert out == wanted + "\n"
    assert f"{tokens} tokens" in err
    content = json.loads(run(*arguments, "--json")[0])
    assert (content["text"], content["tokens"]) == (wanted, tokens)


def test_a_template_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    user = "{recommendation: '<{context}> {candidates}', routing: '{context}{candidates}', passage: '{context}{candidates}'}"
    path.write_text(f"id: mine\nanswer: text\ncandidate: '* {{text}}'\nsystem: null\nuser: {user}\n")
    assert run("render", "--template", path, "--dataset", "rec-music")[0] == (
        "[user]\n<Quiet Hours; Blue Ferry; Evening Post> * Slow Harbour\n* Polka Parade\n* Iron Riot\n"
    )


# ---------------------------------------------------------------- mistakes


def test_mistakes_are_one_line(data, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        (["--template", "lable"], ["unknown template 'lable'"]),
        (["--template", "none.yaml"], ["none.yaml"]),
        (["--dataset", "rec-films"], ["rec-films", "rec-movie", "--data"]),
        (["--row", 1], ["--row", "--data"]),
        (["--split", "train"], ["--split", "--data"]),
        (["--data", tmp_path / "none"], ["none", "test.parquet"]),
        (["--data", data, "--split", "dev"], ["dev.parquet"]),
        (["--data", data, "--row", 4], ["test.parquet row 4", "no such row"]),
        (["--data", data, "--dataset", "passage-7", "--row", 2], ["row 2 of passage-7", "no such row"]),
        (["--data", data, "--dataset", "rec-game"], ["rec-game", "no such row"]),
        (["--tokenizer", tmp_path / "none"], ["none", "no such model folder"]),
        (["--tokenizer", tmp_path / "empty"], ["empty", "no tokenizer"]),
    ):
        message = refused("render", *arguments)
        assert all(word in message for word in words), message


def test_data_of_a_template_that_has_changed_since_is_refused(data):
    write(data / "test.parquet", TASKS, ("think-label", "0123456789abcdef"))
    message = refused("render", "--data", data, "--row", 2)
    assert "row 2" in message and "0123456789abcdef" in message and load("think-label").hash in message
    assert run("render", "--data", data, "--template", "think-label")[1].startswith("note: ")
