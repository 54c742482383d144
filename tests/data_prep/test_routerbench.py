"""RouterBench, wide and long, as Parquet and as CSV: columns as published, numbers worked out by hand."""

import json
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.options import Options
from data_prep.scenarios.routing import ROUTERS
from data_prep.sources.routerbench import find_routerbench, prompt_text, read_routerbench
from iranker_verl.errors import UserError
from tests.data_prep import source_runs
from tests.data_prep.source_runs import made, sources

# sample_id, prompt, eval_name, then (score, dollars) of gpt-4 and of mistral
QUERIES = [
    ("mmlu.val.1", "['Which one?\\nA) x\\nB) y']", "mmlu", (1.0, 0.004), (1.0, 0.001)),
    ("mmlu.val.2", '["It\'s \\"so\\""]', "mmlu", (1.0, 0.002), (0.0, 0.003)),
    ("mtbench.3", "['Write.', 'Rewrite.', 'Write.']", "mtbench", (0.9, 0.04), (0.2, 0.0)),
    ("mtbench.4", "['Sum up.']", "mtbench", (0.0, 0.02), (0.0, 0.02)),
    ("mmlu.val.5", "['5']", "mmlu", (1.0, 0.004), (0.2, 0.001)),
]
LLMS = ("gpt-4-1106-preview", "mistralai/mistral-7b-chat")
TEXTS = ["Which one?\nA) x\nB) y", 'It\'s "so"', "Write.\n\nRewrite.", "5"]


def wide(queries=QUERIES):
    rows = []
    for sample, text, name, *outcomes in queries:
        row = {"sample_id": sample, "prompt": text, "eval_name": name}
        row |= {llm: score for llm, (score, _) in zip(LLMS, outcomes, strict=True)}
        row |= {f"{llm}|model_response": "['long']" for llm in LLMS}
        row |= {f"{llm}|total_cost": cost for llm, (_, cost) in zip(LLMS, outcomes, strict=True)}
        rows.append(row | {"oracle_model_to_route_to": LLMS[0]})
    return pd.DataFrame(rows)


def long(queries=QUERIES):
    return pd.DataFrame(
        {
            "sample_id": sample,
            "prompt": text,
            "eval_name": name,
            "performance": score,
            "model_response": "['long']",
            "model_name": llm,
            "cost": cost,
        }
        for sample, text, name, *outcomes in queries
        for llm, (score, cost) in zip(LLMS, outcomes, strict=True)
    )


def write(table, path):
    table.to_parquet(path, index=False) if path.suffix == ".parquet" else table.to_csv(path)
    return path


def run(path, options=None, datasets=ROUTERS):
    """The rows of all tasks, and what was dropped, as preparation gets at them."""
    rows, dropped, source = source_runs.run(find_routerbench, path.parent, options, datasets)
    assert (source.format, source.datasets) == ("RouterBench", ROUTERS)
    return rows, dropped


def query(row):
    return row["context"].removeprefix("Query: ").rsplit("\n", 1)[0]


def best(rows, dataset):
    return {query(row): row["candidate_ids"][row["relevance"].index(1)] for row in rows if row["dataset"] == dataset}


@pytest.mark.parametrize("name", ["a.parquet", "a.csv"])
@pytest.mark.parametrize("form", [wide, long])
def test_tasks(tmp_path, form, name):
    rows, dropped = run(write(form(), tmp_path / name), Options(split="test"))
    gpt, mistral = LLMS
    # Costs scaled within each benchmark: mmlu .001 to .004, mtbench 0 to .04.
    # 1: gpt 1, mistral 0. 2: gpt 1/3, mistral 2/3. 3: gpt 1, mistral 0. 4: both 1/2. 5: as 1
    assert best(rows, "router-performance") == dict(zip(TEXTS, (mistral, gpt, gpt, gpt), strict=True))
    # .2e - .8c: 1: -.6, .2. 2: -.067, -.533. 3: -.62, .04. 5: -.6, .04
    assert best(rows, "router-cost") == dict(zip(TEXTS, (mistral, gpt, mistral, mistral), strict=True))
    # .5e - .5c: 1: 0, .5. 2: .333, -.333. 3: -.05, .1. 5: 0, .1 (on one scale for all: .45, .0875)
    assert best(rows, "router-balance") == dict(zip(TEXTS, (mistral, gpt, mistral, mistral), strict=True))
    assert dropped == {dataset: {"queries: tied": 1} for dataset in ROUTERS}
    # (.004 + .002 + .04 + .02 + .004) / 5 and (.001 + .003 + 0 + .02 + .001) / 5
    assert sorted(rows[0]["candidates"]) == [f"{gpt}, avg cost 0.014", f"{mistral}, avg cost 0.005"]
    assert {row["task_id"].rsplit(":", 1)[0] for row in rows} == {
        f"{dataset}:{sample}"
        for dataset in ROUTERS
        for sample in ("mmlu.val.1", "mmlu.val.2", "mtbench.3", "mmlu.val.5")
    }


def test_the_four_forms_are_one(tmp_path):
    made = []
    for place, form, name in [
        ("w", wide, "a.csv"),
        ("x", wide, "a.parquet"),
        ("y", long, "a.csv"),
        ("z", long, "a.parquet"),
    ]:
        (tmp_path / place).mkdir()
        made.append(run(write(form(), tmp_path / place / name)))
    assert made[0] == made[1] == made[2] == made[3]
    assert {row["side"] for row in made[0][0]} == {"train", "test"}


def test_every_reason_to_drop(tmp_path):
    fine = (1.0, 1.0), (0.0, 0.5)
    queries = [
        *QUERIES,
        QUERIES[0],
        ("blank", "['', ' ']", "mmlu", *fine),
        ("none", None, "mmlu", *fine),
        ("no score", "b", "mmlu", (None, 1.0), (0.0, 0.5)),
        ("no cost", "c", "mmlu", (1.0, None), (0.0, 0.5)),
        ("long", "x" * 40, "mmlu", *fine),
    ]
    left_out = {
        "rows: empty prompt": 2,
        "queries: a number is missing": 2,
        "queries: longer than 30 characters": 1,
        "queries: tied": 1,
    }
    for name in ("a.parquet", "a.csv"):
        rows, dropped = run(write(wide(queries), tmp_path / name), Options(max_query_chars=30))
        assert dropped == {dataset: left_out | {"rows: repeated query": 1} for dataset in ROUTERS}
        assert len(rows) == 4 * 3  # 11 rows: 4 used, 7 dropped
        table = long(queries).drop(index=2)  # mmlu.val.2 without gpt-4
        rows, dropped = run(write(table, tmp_path / name), Options(max_query_chars=30))
        more = {"rows: empty prompt": 4, "rows: repeated query and LLM": 2, "queries: an LLM is missing": 1}
        assert dropped == {dataset: left_out | more for dataset in ROUTERS}
        assert len(rows) == 3 * 3  # 21 rows: 6 used; 4 + 2 + 1 + 2 * (2 + 1 + 1) dropped
        (tmp_path / name).unlink()


def test_descriptions_beside(tmp_path):
    (tmp_path / "llm_descriptions.json").write_text(
        json.dumps({llm: {"description": "D", "price": "P"} for llm in LLMS})
    )
    rows, _ = run(write(wide(), tmp_path / "a.parquet"))
    assert sorted(rows[0]["candidates"]) == [f"{llm}, P: D" for llm in LLMS]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("['a']", "a"),
        (" [ \"a\" , 'b' ] ", "a\n\nb"),
        ("['a', 'b', 'a', '']", "a\n\nb"),
        (["a", "b"], "a\n\nb"),
        ("['say \\\\frac{1}{2} \\u2028']", "say \\frac{1}{2}"),
        ("['\\ud83d']", "?"),
        ("plain", "plain"),
        ("[1, 2,  3] is a list", "[1, 2,  3] is a list"),
        ("[1, 2,  3]", "[1, 2,  3]"),
        ("['cut of", "['cut of"),
        ("[__import__('os')]", "[__import__('os')]"),
        ("[" * 5000, "[" * 5000),
        ("[]", ""),
        ("", ""),
        (None, ""),
        (float("nan"), ""),
    ],
)
def test_prompts(given, text):
    assert prompt_text(given) == text


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=4, unique_by=str.strip))
@settings(deadline=None)
def test_prompts_come_back_as_they_were(turns):
    assert prompt_text(str(turns)) == prompt_text(turns) == "\n\n".join(turn.strip() for turn in turns)


@pytest.mark.parametrize(
    ("name", "header", "own"),
    [
        ("a.csv", "sample_id,prompt,eval_name,x,x|total_cost", True),
        ("a.csv", ",sample_id,prompt,eval_name,model_name,performance", True),
        ("a.csv", "sample_id;prompt;eval_name;x;x|total_cost", True),  # and refused
        ("routerbench_0shot.csv", "anything", True),  # and refused
        ("a.csv", "sample_id,prompt,eval_name,x", False),
        ("a.csv", "", False),
        ("a.parquet", "no parquet", False),
        ("RouterBench.parquet", "no parquet", True),  # and refused
        ("a.pkl", "", False),
        ("routerbench_0shot.txt", "", False),
    ],
)
def test_what_is_found(tmp_path, name, header, own):
    (tmp_path / name).write_text(header + "\n")
    assert (
        len(
            list(
                sources(find_routerbench, [tmp_path / name, tmp_path / "gone.csv", tmp_path / "gone.parquet"], tmp_path)
            )
        )
        == own
    )


def test_a_pickle_is_refused_unless_it_was_converted(tmp_path):
    file = tmp_path / "routerbench_0shot.pkl"
    file.write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    (source,) = sources(find_routerbench, [file], tmp_path)
    with pytest.raises(UserError, match="not opened; convert it where it can do no harm") as error:
        list(made(source))
    assert "to_parquet('routerbench_0shot.parquet')" in str(error.value)
    assert "\n" not in str(error.value)
    write(wide(), file.with_suffix(".parquet"))
    assert len(run(file)[0]) == 12
    assert Counter(path.name for path in tmp_path.iterdir()) == {file.name: 1, "routerbench_0shot.parquet": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            wide().drop(columns="eval_name"),
            "no column 'eval_name'; RouterBench has sample_id,prompt,eval_name with NAME",
        ),
        (wide().drop(columns=LLMS[0]), "no column 'gpt-4-1106-preview'"),
        (wide()[["sample_id", "prompt", "eval_name"]], "no column 'NAME|total_cost'"),
        (long().drop(columns="performance"), "no column 'performance'"),
        (long().assign(model_name=[LLMS[0], None] * 5), "row {}: model_name is empty"),
        (
            wide().astype(object).assign(**{LLMS[1]: ["1", "good", "0", "0", "0"]}),
            "row {}: mistralai/mistral-7b-chat is 'good'",
        ),
        (long().assign(cost=[0.1, -0.1] * 5), "row {}: cost is '-0.1', below 0"),
        (long()[:1], "1 LLM(s)"),
    ],
)
@pytest.mark.parametrize("name", ["routerbench.parquet", "routerbench.csv"])
def test_what_is_refused(tmp_path, table, message, name):
    file = write(table, tmp_path / name)
    with pytest.raises(UserError) as error:
        run(file)
    row = 2 if name.endswith(".parquet") else 3  # in a CSV the header is row 1
    assert message.format(row) in str(error.value)
    assert str(file) in str(error.value)
    assert "\n" not in str(error.value)


def test_broken_files(tmp_path):
    file = write(wide(), tmp_path / "routerbench.parquet")
    whole = file.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", b"PAR1"):
        file.write_bytes(broken)
        with pytest.raises(UserError, match=r"routerbench\.parquet: not a whole Parquet file") as error:
            run(file)
        assert "\n" not in str(error.value)
    file.unlink()
    with pytest.raises(UserError, match="No such file"):
        read_routerbench(file)
    semicolons = tmp_path / "routerbench.csv"
    wide().to_csv(semicolons, sep=";")
    with pytest.raises(UserError, match=r"no column 'sample_id'.*separated by commas"):
        run(semicolons)
