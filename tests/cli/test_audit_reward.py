"""`iranker audit-reward`: tables, JSON, exit codes, and a user's mistakes in one line."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from data_prep.schema import SCHEMA
from iranker_verl.cli.reward import _settings, audit_reward
from iranker_verl.errors import UserError
from tests.command import invoke
from tests.reward_fns.published_faults import Published

app = typer.Typer()
app.command("audit-reward")(audit_reward)
FLOAT_ONLY = "def compute_score(data_source, solution_str, ground_truth, extra_info, bonus=0):\n    return bonus\n"


@pytest.fixture
def data(tmp_path):
    """A folder of prepared data, 30 tasks of 6 candidates."""
    rows = Published().recommendation(30, 6)
    for split in ("train", "test"):
        mine = [{**row, "agent_name": "elimination_agent"} for row in rows if row["extra_info"]["split"] == split]
        pq.write_table(pa.Table.from_pylist(mine, schema=SCHEMA), tmp_path / f"{split}.parquet")
    return tmp_path


def test_ours_is_clean(data):
    result = invoke(app, "--reward", "pkg://reward_fns.exclusion", "--data", data, "--limit", 5)
    assert result.exit_code == 0
    for words in ("oracle", "prompt echo", "saturation", "clean", "not examined", "On 5 tasks", "<answer>[A]</answer>"):
        assert words in result.output
    assert "flagged" not in result.output


def test_kwargs_in_both_forms(data):
    for more in (
        ("--kwargs", "kind=corrected", "--kwargs", "malformed=-2"),
        ("--kwargs", "kind=corrected", "malformed=-2"),
    ):
        result = invoke(
            app, "--reward", "pkg://reward_fns.exclusion:compute_score", "--data", data, *more, "--limit", 5, "--json"
        )
        assert result.exit_code == 0
        paid = {p["policy"]: p for p in json.loads(result.stdout)["paid"]}
        assert paid["oracle"]["mean"] == pytest.approx(1 / 6)
        assert paid["empty"]["mean"] == pytest.approx(-2 - 5 / 6)


@pytest.mark.parametrize(
    ("value", "read"),
    [(".05", 0.05), ("-.5", -0.5), ("-2", -2), ("true", True), ("null", None), ("graded", "graded"), ("[1]", [1])],
)
def test_values_of_kwargs(value, read):
    assert _settings([f"x={value}"]) == {"x": read} and type(_settings([f"x={value}"])["x"]) is type(read)


def test_what_a_reward_prints_is_not_in_the_report(data):
    (data / "mine.py").write_text("print('loaded')\n" + FLOAT_ONLY.replace("return", "print('scored'); return"))
    result = invoke(app, "--reward", data / "mine.py", "--data", data / "test.parquet", "--limit", 2, "--json")
    assert json.loads(result.stdout)["tasks"] == 2
    assert "loaded\nscored\n" in result.stderr


@pytest.mark.parametrize(
    ("field", "words"), [({"target": 99}, "target is 99"), ({"candidates": ["a", None]}, "number 1 is None")]
)
def test_a_wrong_row_is_named(data, field, words):
    path = data / "test.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[3]["reward_model"]["ground_truth"] |= field
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    with pytest.raises(UserError, match=rf"test.parquet row 3: ground_truth .*{words}"):
        invoke(app, "--reward", "pkg://reward_fns.exclusion", "--data", data)


def test_what_is_flagged_fails(data):
    (data / "mine.py").write_text(FLOAT_ONLY)
    result = invoke(app, "--reward", data / "mine.py", "--data", data, "--kwargs", "bonus=1", "--limit", 5)
    assert result.exit_code == 1
    assert "no signal" in result.output and "flagged" in result.output
    result = invoke(app, "--reward", data / "mine.py", "--data", data, "--limit", 5, "--json")
    assert result.exit_code == 1
    assert {"no signal", "constant term", "failures not counted"} <= set(json.loads(result.stdout)["flagged"])


def test_rankings_are_told_by_the_rows_or_asked_for(data):
    result = invoke(
        app, "--reward", "pkg://reward_fns.direct", "--data", data, "--answers", "ranking", "--limit", 3, "--json"
    )
    assert (result.exit_code, json.loads(result.stdout)["dialect"]) == (0, "<answer>[A], [A], …</answer>")
    path = data / "test.parquet"
    rows = pq.read_table(path).to_pylist()
    for row in rows:
        row["extra_info"]["row_kind"] = "direct"
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)
    result = invoke(app, "--reward", "pkg://reward_fns.direct", "--data", data, "--limit", 3, "--json")
    assert json.loads(result.stdout)["dialect"] == "<answer>[A], [A], …</answer>"


def test_parser_and_log_of_a_test_run(data):
    log = data / "requests.jsonl"
    log.write_text("\n".join(map(json.dumps, Published(7).requests())) + "\n\n")
    ours = ("--reward", "pkg://reward_fns.exclusion", "--data", data, "--limit", 3, "--json")
    result = invoke(app, *ours, "--parser", "pkg://reward_fns.answers:parse_exclusion", "--requests", log)
    assert json.loads(result.stdout)["flagged"] == ["lock step"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--reward", "pkg://no.such.module"), "no.such.module: cannot be imported"),
        (("--reward", "pkg://reward_fns.exclusion:nothing"), "no function 'nothing'"),
        (("--kwargs", "kind"), "--kwargs kind: give key=value"),
        (("--kwargs", "formt_weight=0.1"), "unknown reward_kwargs 'formt_weight'"),
        (("--answers", "both"), "--answers both: exclusion or ranking"),
        (("--requests", "none.jsonl"), "none.jsonl: not a readable text file"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_a_users_mistake_is_one_line(data, arguments, words):
    options = {"--reward": "pkg://reward_fns.exclusion", "--data": str(data), arguments[0]: arguments[1]}
    with pytest.raises(UserError, match=r"^[^\n]*$") as error:
        invoke(app, *(part for pair in options.items() for part in pair))
    assert words in str(error.value)


@pytest.mark.parametrize(
    "line", ['{"task": 1, "step": 0, "start": 0.0}', "[1, 2]", "{", '{"task": 1, "step": "x", "start": 0, "end": 1}']
)
def test_a_wrong_line_of_the_log_is_named(data, line):
    log = data / "requests.jsonl"
    log.write_text('{"task": 1, "step": 0, "start": 0.0, "end": 1.0}\n' + line)
    with pytest.raises(UserError, match="line 2"):
        invoke(app, "--reward", "pkg://reward_fns.exclusion", "--data", data, "--requests", log)
