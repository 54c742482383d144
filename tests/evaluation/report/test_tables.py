"""Tables: published numbers stay apart, and any name survives LaTeX, Markdown and CSV."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iranker_verl.evaluation import published
from iranker_verl.evaluation.baselines import BASELINES
from iranker_verl.evaluation.evaluate import evaluate_baselines
from iranker_verl.evaluation.report import tables
from iranker_verl.evaluation.report.formats import p_text, stars
from iranker_verl.evaluation.report.page import report_tables
from iranker_verl.evaluation.report.table import GROUP, PUBLISHED, Row, Table
from iranker_verl.evaluation.report.tables_text import (
    CSV_COLUMNS,
    latex,
    latex_escape,
    long_csv,
    markdown,
    markdown_escape,
)
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.statistics import comparisons
from iranker_verl.evaluation.systems import role_by_name
from iranker_verl.ranking import DATASETS
from tests.evaluation.synthetic import make_tasks, play_as


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    tasks = make_tasks(["rec-movie", "passage-5"], n=10)
    systems = [play_as("before", tasks, knows=0, malformed=0.2), play_as("after", tasks, knows=1)]
    baselines = evaluate_baselines(tasks, tasks, tmp_path_factory.mktemp("run"), log=lambda _: None)
    return collect([*systems, *baselines], seed=0)


def with_rr(**systems):
    """Results of one dataset ``d``, {system: RR}, nothing asked of a language model but by after and before."""
    numbers = {
        s: {"rr": rr, "ci95": [rr, rr], "n": 3, "ndcg@5": rr, "ndcg@10": rr, "hit@1": rr}
        | {
            "malformed_rate": 0.0 if s in ("after", "before") else None,
            "calls_per_task": 5.0 if s in ("after", "before") else None,
        }
        for s, rr in systems.items()
    }
    roles = {s: role_by_name(s, baseline=s in BASELINES) for s in systems}
    return {"datasets": {"d": numbers}, "macro": {s: n | {"n_datasets": 1} for s, n in numbers.items()}, "roles": roles}


def roles_of(*systems):
    return {s: role_by_name(s, baseline=s in BASELINES) for s in systems}


def cells(table):
    return [r.cells for r in table.rows if r.kind != GROUP]


def test_published_numbers_are_those_of_the_paper():
    found = published.load()
    rows = found.systems | found.zero_shot
    assert len(rows) == 9 and all(list(values) == list(DATASETS) for values in rows.values())
    ours = rows["IRanker-3B"]
    assert (ours["rec-movie"], ours["router-cost"], ours["router-balance"], ours["passage-9"]) == (
        34.69,
        30.39,
        24.44,
        49.96,
    )
    assert rows["Qwen2.5-3B-Instruct, iterative"]["rec-game"] == 29.49
    assert rows["Qwen2.5-3B-Instruct, direct"]["rec-game"] == 13.17
    assert rows["IRanker-3B, zero-shot"]["rec-music"] == 23.21
    assert found.generic["mathqa"] == (0.3538, 0.3856) and len(found.generic) == 8


def test_table_one_has_all_nine_and_keeps_what_is_published_apart(results):
    table = tables.main_table(results, published.load())
    assert len(table.columns) == 11 and table.columns[1:4] == ("Movie", "Music", "Game")
    kinds = [row.kind for row in table.rows]
    measured, theirs = kinds[: kinds.index(PUBLISHED)], kinds[kinds.index(PUBLISHED) :]
    assert kinds.count(GROUP) == 2 and set(theirs) == {PUBLISHED} and PUBLISHED not in measured
    assert table.rows[1].cells == ("after RL", "100.00", *("–",) * 5, "100.00", "–", "–", "100.00")
    iranker = next(row.cells for row in table.rows if row.cells[0] == "IRanker-3B")
    assert iranker[1:] == ("34.69", "29.18", "42.49", "23.62", "30.39", "24.44", "60.98", "53.22", "49.96", "38.77")


def test_own_datasets_have_no_published_rows():
    table = tables.main_table(with_rr(after=0.5, bm25=0.75), published.load())
    assert table.columns == ("system", "d", "macro")
    assert cells(table) == [("the model", "50.00", "50.00"), ("BM25", "75.00", "75.00")]


def test_macro_of_some_datasets_says_so(results):
    table = tables.main_table(results, published.load())
    assert any(c[0] == "popularity" and c[-1].endswith(" (1 of 2)") for c in cells(table))


def test_what_could_not_run_has_a_row_that_says_why_and_no_number():
    reasons = {
        "monot5": "monot5: no model is named for it; name a model folder with --models monot5=FOLDER",
        "rankbert": f"rankbert: {'somewhat ' * 20}",
    }
    results = with_rr(after=0.5, bm25=0.75) | {"unavailable": reasons}
    cut = " ".join(["somewhat"] * 6)
    assert cells(tables.main_table(results, published.load()))[2:] == [
        ("MonoT5 (not run: no model is named for it)", "–", "–"),
        (f"RankBERT (not run: {cut} …)", "–", "–"),
    ]
    rows = list(csv.reader(io.StringIO(long_csv(results, published.load()))))
    assert [row for row in rows if row[1] == "monot5"] == [
        [f"not run: {reasons['monot5']}", "monot5", "macro", "rr", ""]
    ]


def test_stars_stand_beside_their_p():
    one = {"against": "after", "dataset": "macro", "difference": -0.25, "ci95": [-0.3, -0.2], "n": 1234}
    found = [one | {"system": "bm25", "p": 1e-5, "p_holm": 2e-5}, one | {"system": "random", "p": 0.04, "p_holm": 0.5}]
    table = tables.comparison_table(found, roles_of("after", "bm25", "random"), "macro")
    assert cells(table) == [
        ("BM25", "−25.00", "−30.0 to −20.0", "< 0.001", "< 0.001 ***", "1,234"),
        ("random", "−25.00", "−30.0 to −20.0", "0.040", "0.50", "1,234"),
    ]
    assert "all 2 comparisons" in table.note and "the model" in table.note
    assert tables.comparison_table(found, roles_of("after", "bm25", "random"), None) is None


def test_by_dataset_has_a_heading_each():
    values = {s: {d: {"1": v, "2": v} for d in ("passage-5", "rec-movie")} for s, v in (("after", 1.0), ("bm25", 0.5))}
    table = tables.comparison_table(comparisons(values, "after", seed=0), roles_of(*values), None)
    assert [r.cells[0] for r in table.rows] == ["Movie", "BM25", "P-5", "BM25"]


@pytest.mark.parametrize(
    ("p", "text", "marked"),
    [
        (0.0001, "< 0.001", " ***"),
        (0.001, "0.001", " **"),
        (0.0123, "0.012", " *"),
        (0.05, "0.050", ""),
        (1.0, "1.00", ""),
    ],
)
def test_p(p, text, marked):
    assert (p_text(p), stars(p)) == (text, marked)


def test_zero_shot_beside_the_published_one():
    results = with_rr(after=0.5) | {"zero_shot": {"rec-game": {"rr": 0.25}}}
    table = tables.zero_shot_table(results, published.load())
    game = table.columns.index("Game")
    found = {c[0]: c for c in cells(table)}
    assert set(found) == {"zero-shot", "IRanker-3B, zero-shot", "IRanker-3B"}
    assert (found["zero-shot"][game], found["zero-shot"][-1]) == ("25.00", "25.00")
    assert found["IRanker-3B, zero-shot"][game] == "31.16"
    assert tables.zero_shot_table(with_rr(after=0.5), published.load()) is None


def test_zero_shot_of_merged_runs_has_the_model_trained_on_all():
    merged = with_rr(**{"after": 0.75, "before": 0.25, "zero-shot": 0.5})
    merged["macro"]["zero-shot"]["calls_per_task"] = 5.0
    table = tables.zero_shot_table(
        merged | {"zero_shot": {"d": merged["datasets"]["d"]["zero-shot"]}}, published.load()
    )
    assert cells(table)[:3] == [
        ("zero-shot", "50.00", "50.00"),
        ("trained on all", "75.00", "75.00"),
        ("before RL", "25.00", "25.00"),
    ]


def test_out_of_domain():
    generic = {
        "gsm8k": {"base": 0.5, "trained": 0.625, "stderr": 0.01},
        "own": {"base": 0.5, "trained": 0.25, "stderr": None},
    }
    assert cells(tables.generic_table(generic, published.load())) == [
        ("gsm8k", "50.00", "62.50", "+12.50", "1.00", "63.53", "73.69"),
        ("own", "50.00", "25.00", "−25.00", "–", "–", "–"),
    ]


def test_strict_orders_and_cost_show_what_is_there():
    results = with_rr(after=0.5, bm25=0.25)
    assert tables.strict_table(results) is None and tables.orders_table(results) is None
    results["macro"]["after"] |= {
        "rr_strict": 0.25,
        "orders": {"k": 3, "sd": 0.0125, "position_bias": -0.5},
        "seconds_p50": 1.5,
        "dollars_per_task": 0.000123,
    }
    results["macro"]["bm25"]["fit_seconds"] = 12.0
    assert cells(tables.strict_table(results)) == [("the model", "50.00", "25.00", "0.0 %")]
    assert cells(tables.orders_table(results)) == [("the model", "3", "1.25", "−0.500")]
    cost = tables.cost_table(results)
    assert cost.columns == ("system", "calls", "s, median", "$", "training, s")
    assert cells(cost) == [("the model", "5.0", "1.50", "0.00012", "–"), ("BM25", "–", "–", "–", "12.0")]


def test_systems_that_apply_to_more_come_first():
    results = with_rr(random=0.3, bm25=0.4, sasrec=0.9, before=0.1, after=0.2)
    for system, numbers in results["macro"].items():
        numbers["n_datasets"] = 3 if system == "sasrec" else 9
    assert tables.in_order(results) == ["after", "before", "bm25", "random", "sasrec"]


def test_a_dataset_on_which_nothing_beats_the_constant_ranking_is_named_in_words():
    better, worse = with_rr(after=0.6, constant=0.5, random=0.9), with_rr(after=0.5, bm25=0.4, constant=0.5, random=0.9)
    assert "constant" not in tables.main_table(better).note
    assert "On d no learned system beats the constant ranking" in tables.main_table(worse).note
    assert "On d no learned system beats" in tables.main_table(with_rr(after=0.5, popularity=0.5)).note
    assert "constant" not in tables.main_table(with_rr(after=0.5)).note
    assert "constant" not in tables.main_table(with_rr(constant=0.5, random=0.4)).note


def test_a_system_is_called_by_its_role_only_where_its_name_is_that_role():
    results = with_rr(mine=0.5, base=0.25, bm25=0.75)
    results["roles"] |= {"mine": "after", "base": "before"}
    assert [row[0] for row in cells(tables.main_table(results))] == ["mine", "base", "BM25"]
    assert tables.label("after", roles_of("after", "before")) == "after RL"


# Escaping

ANY = st.text(max_size=12)
ESCAPED = re.compile(r"\\textbackslash\{\}|\\text[a-z]+\{\}|\\[{}$&#%_]|\$-\$|\$\\times\$")


@given(ANY)
def test_nothing_special_is_left_for_latex(text):
    escaped = latex_escape(text)
    assert not re.search(r'[\\{}$&#%_~^<>|"]', ESCAPED.sub("", escaped))
    assert escaped.isprintable() and "\n" not in escaped
    assert not re.search(r"(?m)^\s*%", escaped)


def test_latex_by_hand():
    assert latex_escape("50 % of a_b & {c}\\d ~ #1 $x^2$") == (
        r"50 \% of a\_b \& \{c\}\textbackslash{}d \textasciitilde{} \#1 \$x\textasciicircum{}2\$"
    )


def table_of(*names):
    return Table(
        "t", names[0] or "x", ("system", *names), (Row(("group",), GROUP), Row(("a", *names), "ours")), names[-1]
    )


@given(st.lists(ANY, min_size=1, max_size=4))
def test_latex_rows_have_as_many_cells_as_columns(names):
    body = latex([table_of(*names)]).split("\\toprule")[1]
    rows = [r for r in body.split(r" \\") if "&" in re.sub(r"\\&", "", r)]
    assert [len(re.findall(r"(?<!\\)&", row)) for row in rows] == [len(names)] * 2


@given(st.lists(ANY, min_size=1, max_size=4))
def test_markdown_rows_have_as_many_cells_as_columns(names):
    lines = [line for line in markdown([table_of(*names)]).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(names) + 2}


def test_markdown_by_hand():
    assert markdown_escape("a|b *c* <i> `d`\n# e") == r"a\|b \*c\* \<i\> \`d\` \# e"


@given(st.lists(ANY, min_size=2, max_size=2, unique=True), ANY)
def test_csv_gives_every_name_and_number_back(systems, dataset):
    numbers = {
        s: {"rr": 0.1 + i / 3, "ci95": [0.05, 0.9], "n": 3, "malformed_rate": None} for i, s in enumerate(systems)
    }
    text = long_csv({"datasets": {dataset: numbers}, "macro": numbers}, published.load())
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS and {len(r) for r in rows} == {5}
    shown = {name: f"'{name}" if re.match(r"\s*[=+@-]", name) else name for name in (*systems, dataset)}
    for system, found in numbers.items():
        assert ["measured", shown[system], shown[dataset], "rr", repr(found["rr"])] in rows
        assert ["measured", shown[system], shown[dataset], "rr_low", "0.05"] in rows
    assert ["published", "IRanker-3B", "rec-movie", "rr", "0.3469"] in rows


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\r@x"])
def test_csv_holds_no_formula_for_a_spreadsheet(name):
    numbers = {name: {"rr": -0.5}}
    rows = list(
        csv.reader(io.StringIO(long_csv({"datasets": {name: numbers}, "macro": numbers}, published.load()), newline=""))
    )
    assert ["measured", f"'{name}", f"'{name}", "rr", "-0.5"] in rows


def measured(results):
    """{(system, dataset, measure): value} of the CSV; each stands there once."""
    rows = list(csv.reader(io.StringIO(long_csv(results, published.load()), newline="")))[1:]
    found = {tuple(row[1:4]): float(row[4]) for row in rows if row[0] == "measured"}
    assert len(found) == sum(row[0] == "measured" for row in rows)
    return found


def test_csv_has_what_is_within_other_numbers():
    results = with_rr(after=0.5, bm25=0.25)
    results["macro"]["after"]["orders"] = {"k": 3, "sd": 0.0125, "position_bias": -0.5}
    results["macro"]["bm25"]["orders"] = None
    one = {"system": "bm25", "against": "after", "dataset": "d", "difference": -0.25, "ci95": [-0.3, -0.2]}
    results["comparisons"] = [one | {"p": 0.01, "p_holm": 0.02, "n": 3}]
    results["diagnosis"] = {
        "after": {
            "n": 3,
            "survival": {"2": {"n": 3, "alive": [1.0, 0.75], "random": [1.0, 0.5]}},
            "regret": 0.25,
            "regret_random": 0.625,
            "regret_by_dataset": {"d": 0.375},
            "by_position": [{"position": 4, "n": 2, "rr": 0.5}],
            "statuses": {"ok": 7},
        }
    }
    results["generic"] = {"gsm8k": {"base": 0.5, "trained": 0.75, "difference": 0.25, "stderr": 0.01}}
    found = measured(results)
    expected = {
        ("after", "macro", "orders.k"): 3,
        ("after", "macro", "orders.sd"): 0.0125,
        ("after", "macro", "orders.position_bias"): -0.5,
        ("bm25", "d", "difference_low against after"): -0.3,
        ("bm25", "d", "difference_high against after"): -0.2,
        ("bm25", "d", "n against after"): 3,
        ("after", "all", "survival.2.alive.1"): 0.75,
        ("after", "all", "survival.2.random.1"): 0.5,
        ("after", "all", "regret"): 0.25,
        ("after", "all", "regret_random"): 0.625,
        ("after", "d", "regret"): 0.375,
        ("after", "all", "by_position.4.rr"): 0.5,
        ("after", "all", "statuses.ok"): 7,
        ("trained minus base", "gsm8k", "difference"): 0.25,
        ("after", "d", "rr_low"): 0.5,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_csv_has_a_zero_shot_number_once():
    merged = with_rr(**{"after": 0.75, "zero-shot": 0.5})
    assert measured(merged | {"zero_shot": {"d": merged["datasets"]["d"]["zero-shot"]}}) == measured(merged)
    other = measured(merged | {"zero_shot": {"elsewhere": {"rr": 0.125}}})
    assert other["zero-shot", "elsewhere", "rr"] == 0.125


def test_all_tables_of_a_run_are_written(results):
    made = [t for t in report_tables(results | {"diagnosis": {}, "comparisons": []}).values() if t]
    text = latex(made)
    assert text.count(r"\begin{table}") == len(made) == text.count(r"\end{table}") >= 2
    assert all(len(row.cells) == len(t.columns) for t in made for row in t.rows if row.kind != GROUP)
