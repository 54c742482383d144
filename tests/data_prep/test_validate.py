"""Any Parquet file for verl: sound rows pass, spoiled ones are counted under their problem, foreign ones explained."""

import copy
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_folder import row, rows, write

from data_prep.checks.validate import validate
from data_prep.schema import SCHEMA
from iranker_verl.errors import UserError
from iranker_verl.ranking import DATASETS
from iranker_verl.ranking.templates import load, parse

TEMPLATES = [load(name) for name in ("label", "think-label", "think-text")]


@pytest.fixture
def save(tmp_path):
    def saved(made, schema=SCHEMA):
        path = tmp_path / "some.parquet"
        pq.write_table(pa.Table.from_pylist(made, schema=schema), path)
        return path

    return saved


def problems(path, **options):
    return {p.what: p for p in validate(path, **options).problems.values()}


def test_what_is_prepared_passes(tmp_path):
    write(tmp_path, rows(60), rows(30, start=60))
    for name, count in (("train", 60), ("test", 30)):
        report = validate(tmp_path / f"{name}.parquet")
        assert report.ok and report.rows == count and not report.problems and not report.notes


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda t: t.id)
def test_every_template_is_known(save, template):
    assert not problems(save(rows(6, template=template)))


def test_direct_rows(save):
    direct = load("direct-label")
    assert not problems(save([row("passage-5", 1, template=direct, kind="direct")]))
    found = problems(save([row("passage-5", 1, kind="direct")]))
    assert list(found) == ["template: of another kind than the row"]


def test_graded_rows(save):
    assert not problems(save([row("passage-5", 1, relevance=[0.0, 3.0, 1.0, 3.0])]))


# ------------------------------------------------------------------------------------------------------- spoiled rows


def into(*path):
    """A function that sets what lies at a path."""

    def spoil(value):
        def do(one):
            for name in path[:-1]:
                one = one[name]
            one[path[-1]] = value(one[path[-1]]) if callable(value) else value

        return do

    return spoil


truth = "reward_model", "ground_truth"
info = "extra_info"
FAULTS = [
    (into("prompt")(None), "prompt: not a list of messages {role, content}"),
    (into("prompt")([]), "prompt: not a list of messages {role, content}"),
    (into("prompt", 0, "role")("human"), "prompt: unknown role (known are system, user, assistant, tool)"),
    (into("prompt", 0, "content")(None), "prompt: a message's content is not a text"),
    (into("prompt", 0, "content")(" \n\t"), "prompt: a message is blank"),
    (into("prompt", 0, "content")(lambda text: text + " "), "prompt: not what its template makes of the row"),
    (into("prompt")(lambda m: m * 2), "prompt: not what its template makes of the row"),
    (into("data_source")(None), "data_source: not a name"),
    (into("data_source")(" "), "data_source: not a name"),
    (into("data_source")("rec-game"), None),  # its prompt may be the same
    (into("reward_model")(None), "ground_truth: not {candidates, target}: our rewards cannot score it"),
    (into(*truth)(None), "ground_truth: not {candidates, target}: our rewards cannot score it"),
    (into(*truth, "candidates")(None), "ground_truth: our rewards cannot score it"),
    (into(*truth, "candidates")([]), "ground_truth: our rewards cannot score it"),
    (into(*truth, "candidates")(["one"]), "candidates: fewer than two"),
    (into(*truth, "candidates", 2)(None), "ground_truth: our rewards cannot score it"),
    (into(*truth, "candidates", 2)(" "), "candidates: a blank text"),
    (into(*truth, "candidates", 1)("Another"), "prompt: not what its template makes of the row"),
    (into(*truth, "candidates")(lambda c: c[::-1]), "prompt: not what its template makes of the row"),
    (into(*truth, "candidates")(lambda texts: texts[:1] * 4), "candidates: one text with two relevances"),
    (into(*truth, "relevance")([1e100, 0.0, 0.0, 0.0]), "ground_truth: our rewards cannot score it"),
    (into(*truth, "target")(None), "ground_truth: our rewards cannot score it"),
    (into(*truth, "target")(4), "ground_truth: our rewards cannot score it"),
    (into(*truth, "target")(-1), "ground_truth: our rewards cannot score it"),
    (into(*truth, "relevance")([0.0, 1.0]), "ground_truth: our rewards cannot score it"),
    (into(*truth, "relevance")([0.0, 1.0, float("nan"), 0.0]), "ground_truth: our rewards cannot score it"),
    (into(*truth, "relevance")([0.0, 1.0, float("inf"), 0.0]), "ground_truth: our rewards cannot score it"),
    (into(*truth, "relevance")([2.0] * 4), "ground_truth: no candidate is better than another"),
    (into(*truth, "relevance")([0.0, 0.0, 0.0, 2.0]), "ground_truth: target is not the place of the best"),
    (into("agent_name")(None), "agent_name: not the one that plays rows of its kind"),
    (into("agent_name")("direct_agent"), "agent_name: not the one that plays rows of its kind"),
    (into(info)(None), "row_kind: not episode or state or direct"),
    (into(info, "row_kind")("whole"), "row_kind: not episode or state or direct"),
    (into(info, "row_kind")("direct"), "agent_name: not the one that plays rows of its kind"),
    (into(info, "row_kind")("state"), None),
    (into(info, "scenario")("chess"), "task: cannot be made of the row"),
    (into(info, "scenario")(None), "extra_info.scenario: not a text"),
    (into(info, "context")(None), "extra_info.context: not a text"),
    (into(info, "context")("other"), "prompt: not what its template makes of the row"),
    (into(info, "task_id")(None), "extra_info.task_id: not a text"),
    (into(info, "candidate_ids")(None), "extra_info.candidate_ids: not a list of texts"),
    (into(info, "candidate_ids")(lambda ids: ids[:3]), "task: cannot be made of the row"),
    (into(info, "candidate_ids")(lambda ids: ids[:3] + ids[:1]), "task: cannot be made of the row"),
    (into(info, "template_hash")("0" * 16), "template: unknown here; give the .yaml file that the rows were made with (--template)"),
    (into(info, "template_hash")(TEMPLATES[1].hash), "prompt: not what its template makes of the row"),
    (into(info, "index")(4), "extra_info.index: occurred before"),
    (into("ability")(None), None),
    (into("reward_model", "style")(None), None),
    (into(info, "split")(None), None),
    (into(info, "group")(None), None),
    (into(info, "time")(None), None),
    (into(info, "history_ids")(None), None),
]  # fmt: skip


@pytest.mark.parametrize("spoil, expected", FAULTS)
def test_a_spoiled_row(save, spoil, expected):
    made = rows(12)
    assert made[9]["reward_model"]["ground_truth"]["target"] != 3
    spoil(made[9])
    report = validate(save(made))
    assert report.rows == 12
    if expected is None:
        assert report.ok and not report.problems
        return
    assert expected in report.problems and not report.ok
    problem = report.problems[expected]
    assert problem.error and problem.count == 1 and [number for number, _ in problem.first] == [9]
    assert "\n" not in problem.first[0][1]


def test_what_reads_alike(save):
    """By their texts, whatever the ids: among the candidates, and in the history."""
    texts, past = ["Heat (1995)", "Alien (1979)", "Brazil (1985)"], ["Jaws (1975)", "Heat (1995)"]

    def found(texts, target):
        one = row(
            "rec-movie", 0, ids=["a", "b", "c"], texts=texts, target=target, history=["d", "e"], context="; ".join(past)
        )
        return {p.what: (p.error, p.first[0][1]) for p in problems(save([one])).values()}

    assert found([*texts[1:], "Psycho (1960)"], 0) == {}
    assert found(texts, 0) == {"candidates: the best one is shown in the history, too": (True, "'Heat (1995)'")}
    assert found(texts, 1) == {"candidates: one is in the history, too": (True, "'Heat (1995)'")}
    twice = [texts[1], texts[2], texts[2]]
    assert found(twice, 0) == {"candidates: a text occurs twice": (False, "'Brazil (1985)'")}
    assert found(twice, 1) == {"candidates: one text with two relevances": (True, "'Brazil (1985)'")}


def test_values_are_named(save):
    made = rows(6)
    made[1]["reward_model"]["ground_truth"]["target"] = 7
    made[3]["prompt"][0]["content"] = made[3]["prompt"][0]["content"].replace("History", "Story")
    found = problems(save(made))
    assert found["ground_truth: our rewards cannot score it"].first == [
        (1, "ground_truth target is 7, not an index into its 4 candidates")
    ]
    ((number, value),) = found["prompt: not what its template makes of the row"].first
    assert number == 3 and value.startswith("at character 0: 'Story: ") and ", not 'History: " in value


def test_counts_and_first_rows(save):
    made = rows(40)
    for one in made[5::2]:
        one["data_source"] = ""
    problem = problems(save(made))["data_source: not a name"]
    assert problem.count == 18 and problem.first == [(5, "''"), (7, "''"), (9, "''")]


def test_a_limit(save):
    made = rows(20)
    made[15]["data_source"] = ""
    path = save(made)
    assert validate(path, limit=15).ok and validate(path, limit=15).rows == 15
    assert not validate(path, limit=16).ok


def test_odd_characters_are_warnings(save):
    made = [
        row("passage-5", 1, context="a\u2028b"),
        row("passage-5", 2, texts=["a\x07b", "c", "d", "e"]),
        row("passage-5", 3, texts=["caf\ufffd", "c", "d", "e"]),
        row("passage-5", 4, texts=["tab\tand\nline", "c", "d", "e"]),
        row("passage-5", 5, context="  "),
    ]
    report = validate(save(made))
    assert report.ok
    assert {p.what: (p.error, [n for n, _ in p.first]) for p in report.problems.values()} == {
        "context: a control character or line separator": (False, [0]),
        "prompt: a control character or line separator": (False, [0, 1, 2]),
        "candidates: a control character or line separator": (False, [1, 2]),
        "context: blank": (False, [4]),
    }
    assert "U+2028" in report.problems["context: a control character or line separator"].first[0][1]


def test_repeats(save):
    made = rows(6)
    again = copy.deepcopy(made[2])
    again["extra_info"]["index"] = 77
    other = copy.deepcopy(made[2])
    other["extra_info"]["index"] = 78
    other["extra_info"]["candidate_ids"].reverse()  # another order of the same task
    found = problems(save([*made, again, other]))
    assert {what: p.first for what, p in found.items()} == {
        "task: occurred before, in the same order": [(6, "'passage-5:2'")]
    }


# ---------------------------------------------------------------------------------------------------------- templates

YAML = json.dumps(
    {
        "id": "mine",
        "kind": "exclusion",
        "answer": "label",
        "candidate": "({label}) {text}",
        "system": "Be brief.",
        "user": dict.fromkeys(("recommendation", "routing", "passage"), "About {context}\n{candidates}\nOut of {n}:"),
    }
)


def test_a_template_of_ones_own(save):
    mine = parse(YAML, "mine.yaml")
    path = save(rows(6, template=mine))
    assert not problems(path, template=mine)
    found = problems(path)
    unknown = "template: unknown here; give the .yaml file that the rows were made with (--template)"
    assert list(found) == [unknown]
    assert found[unknown].count == 6 and found[unknown].first[0] == (0, f"mine ({mine.hash})")
    # rows of a known template, where another is asked for
    assert list(problems(save(rows(3)), template=mine)) == [unknown]


def test_an_unknown_template_still_has_to_show_the_candidates(save):
    made = rows(6, template=parse(YAML, "mine.yaml"))
    made[1]["prompt"][1]["content"] = "Which one?"
    found = problems(save(made))
    assert found["prompt: a candidate's text is not in it"].first[0][0] == 1


# ------------------------------------------------------------------------------------------------------ foreign files


def test_a_file_for_another_reward(save):
    schema = pa.schema(
        [
            ("data_source", pa.string()),
            ("prompt", SCHEMA.field("prompt").type),
            ("ability", pa.string()),
            ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
            ("extra_info", pa.struct([("split", pa.string()), ("index", pa.int64())])),
        ]
    )
    made = [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "user", "content": f"What is {i} + 1?"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(i + 1)},
            "extra_info": {"split": "train", "index": i},
        }
        for i in range(5)
    ]
    report = validate(save(made, schema))
    assert {w: p.count for w, p in report.problems.items()} == {
        "ground_truth: not {candidates, target}: our rewards cannot score it": 5
    }
    (note,) = report.notes
    assert note.startswith("no column agent_name: verl plays every row with rollout.agent.default_agent_loop")


def foreign(i, prompt):
    return {
        "data_source": "mine",
        "prompt": [{"role": "user", "content": prompt}],
        "reward_model": {"ground_truth": {"candidates": ["red fox", "blue whale"], "target": i % 2}},
    }


def test_states_of_another_pipeline(save):
    made = [foreign(i, "[A] red fox\n[B] blue whale\nExclude the worst:") for i in range(4)]
    report = validate(save(made, None))
    assert report.ok and not report.problems
    assert [note.split(":")[0] for note in report.notes] == ["no column agent_name", "no column extra_info"]


def test_what_a_foreign_prompt_hides(save):
    made = [
        foreign(0, "[A] red fox\n[B] blue whale"),
        foreign(1, "red fox or blue whale?"),  # no labels at all: answers are texts
        foreign(2, "[A] red fox\nblue whale"),
        foreign(3, "[A] red fox\n[B] blue shark"),
    ]
    report = validate(save(made, None))
    assert {w: (p.error, p.first) for w, p in report.problems.items()} == {
        "prompt: shows some labels, and not this one": (False, [(2, "[B]")]),
        "prompt: a candidate's text is not in it": (True, [(3, "'blue whale'")]),
    }


@pytest.mark.parametrize("column", ["prompt", "data_source", "reward_model"])
def test_a_missing_column(tmp_path, save, column):
    path = save(rows(5))
    pq.write_table(pq.read_table(path).drop_columns(column), path)
    report = validate(path)
    assert not report.ok and report.problems[f"{column}: no such column"].count == 5
    assert report.notes[0].startswith(f"no column {column}: verl stops")


def test_none_of_the_columns(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    report = validate(path)
    assert not report.ok and len(report.notes) == 5 and report.rows == 3
    assert {p.count for p in report.problems.values()} == {3}
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), path)
    assert not validate(path).ok and "no rows" in validate(path).notes


@pytest.mark.parametrize("column", SCHEMA.names)
@pytest.mark.parametrize("value", ["text", 7, [1, 2], {"a": 1}, [{"a": 1}]])
def test_a_column_of_another_type(save, column, value):
    path = save(rows(3))
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([value] * 3)), path)
    report = validate(path)  # whatever it finds, it finds it in words
    assert report.rows == 3
    harmless = column == "ability" or (column == "data_source" and value == "text")
    assert report.ok == harmless


def test_text_that_is_not_utf8(tmp_path):
    path = tmp_path / "x.parquet"
    names = pa.array([b"good", b"caf\xe9", b"good"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"data_source": names}), path)
    report = validate(path)
    assert report.rows == 3
    assert report.problems["text is not UTF-8"].first == [(1, "bytes that are no text")]


def test_large_strings_and_dictionaries(save, tmp_path):
    path = save(rows(9))
    table = pq.read_table(path)
    other = table.set_column(0, "data_source", table["data_source"].dictionary_encode())
    other = other.set_column(2, "ability", table["ability"].cast(pa.large_string()))
    pq.write_table(other, path)
    assert not problems(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all" * 9])
def test_a_broken_file_is_one_line(tmp_path, content):
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        validate(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_and_a_truncated_file(tmp_path, save):
    with pytest.raises(UserError, match="no such file"):
        validate(tmp_path / "none.parquet")
    path = save(rows(500))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="unreadable after row 0"):
        validate(path)
    path.write_bytes(content[:1000] + b"\0" * 2000 + content[3000:])  # the footer is whole, pages are not
    with pytest.raises(UserError, match=r"unreadable after row \d+"):
        validate(path)


# ----------------------------------------------------------------------------------------------------------- property

text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"], exclude_characters="\ufeff\ufffd"),
               min_size=1, max_size=20).filter(str.strip)  # fmt: skip


@st.composite
def any_row(draw, number=0):
    count = draw(st.integers(2, 6))
    grades = draw(
        st.none() | st.lists(st.floats(-3, 3), min_size=count, max_size=count).filter(lambda g: len(set(g)) > 1)
    )
    kind = draw(st.sampled_from(["episode", "state", "direct"]))
    template = load("direct-label") if kind == "direct" else draw(st.sampled_from(TEMPLATES))
    return row(
        draw(st.sampled_from(sorted(DATASETS))),
        number,
        kind=kind,
        template=template,
        ids=[f"i{i}" for i in range(count)],
        texts=draw(st.lists(text, min_size=count, max_size=count, unique=True)),
        target=draw(st.integers(0, count - 1)),
        relevance=grades,
        context=draw(text),
    )


@given(st.lists(any_row(), min_size=1, max_size=4), st.data())
@settings(max_examples=120, deadline=None)
def test_any_sound_rows_pass_and_any_fault_is_found(tmp_path_factory, made, data):
    for number, one in enumerate(made):
        one["extra_info"] |= {"index": number, "task_id": f"t{number}"}
    path = tmp_path_factory.mktemp("any") / "x.parquet"
    pq.write_table(pa.Table.from_pylist(made, schema=SCHEMA), path)
    report = validate(path)
    assert report.ok and not report.problems, report.problems

    number = data.draw(st.integers(0, len(made) - 1))
    one = copy.deepcopy(made[number])
    texts = one["reward_model"]["ground_truth"]["candidates"]
    places = data.draw(st.sampled_from(["candidate", "context", "prompt", "order", "target", "relevance"]))
    if places == "candidate":
        texts[data.draw(st.integers(0, len(texts) - 1))] = data.draw(text)
    elif places == "context":
        one["extra_info"]["context"] = data.draw(text)
    elif places == "prompt":
        message = data.draw(st.sampled_from(one["prompt"]))
        at = data.draw(st.integers(0, len(message["content"])))
        message["content"] = message["content"][:at] + data.draw(text) + message["content"][at:]
    elif places == "order":
        texts[:] = data.draw(st.permutations(texts))
    elif places == "target":
        one["reward_model"]["ground_truth"]["target"] = data.draw(st.none() | st.integers(-2, 8))
    else:
        one["reward_model"]["ground_truth"]["relevance"] = data.draw(st.none() | st.lists(st.floats(), max_size=6))
    before, after = made[number]["reward_model"]["ground_truth"], one["reward_model"]["ground_truth"]
    changed = [*made[:number], one, *made[number + 1 :]]
    pq.write_table(pa.Table.from_pylist(changed, schema=SCHEMA), path)
    found = validate(path)
    if one == made[number]:
        assert found.ok
    elif places in ("candidate", "context", "prompt", "order"):
        assert not found.ok and all(n == number for p in found.problems.values() for n, _ in p.first)
    elif found.ok:  # harmless: one of the best is still the best, and verl's target and our relevance agree on it
        count, grades = len(texts), after["relevance"] or None
        assert (after["target"] is None and grades) or 0 <= after["target"] < count
        if grades:
            assert len(grades) == count and len(set(grades)) > 1
            assert after["target"] in (None, grades.index(max(grades)))
    else:
        assert after != before
