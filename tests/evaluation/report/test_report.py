"""The report on synthetic runs: everything is there, nothing is fetched, and texts stay texts."""

import dataclasses
import json
import re

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.report import figures
from iranker_verl.evaluation.report.page import complete, write_report, write_tables
from iranker_verl.evaluation.results import collect
from iranker_verl.evaluation.systems import Role
from tests.evaluation.report.runs_on_disk import EVIL, Page, change_results, make_run, save_episodes, save_results
from tests.evaluation.synthetic import make_tasks, play_as


def page_of(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob("*.part"))
    return Page(path.read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def page(run):
    return page_of(run)


def test_everything_is_there(page):
    names = ("datasets", "learning", "ranks", "times", "survival", "differences", "by-position", "by-popularity")
    figures = {f"figure-{name}" for name in names}
    assert figures | {"example", "about", "numbers", "provenance", "comparisons", "table-regret"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))  # the figures' own ids do not collide either
    for words in (
        *(
            "tiny",
            "1.000",
            "Paired test of the mean: p = 0.005; all p are",  # 12 queries, in both datasets: 2 / 2^12, times 10
            "higher than before on 2 of 2 (2 with p < 0.05)",
        ),
        *(
            "11 min 04 s",
            "5.0 GiB",
            "Reward over a random",
            "Candidates at an",
            "Validation MRR",
            "Malformed answers",
            "backward 30%",
        ),
        *("popularity (1 of 2)", "The base was made in three stages.", "d" * 16, "e" * 16, "verl 0.9.1", "context 5"),
        *("How answers parse", "2 datasets, 5 systems", "Better than"),
    ):
        assert words in page.text, words


def test_sections_answer_in_order(page):
    order = [id for id in page.ids if id in ("worked", "against", "fails", "costs", "made")]
    assert order == ["worked", "against", "fails", "costs", "made"]
    assert {f"#{id}" for id in order} <= set(page.links)


def test_nothing_is_fetched(page):
    assert not [link for link in page.links if not link.startswith("#")]
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", page.source)


def test_both_colour_schemes(page):
    text = page.source
    assert "prefers-color-scheme: dark" in text and "var(--after)" in text
    used = set(re.findall(r"var\((--\w+)\)", text))
    assert all(text.count(f"{name}:") == 2 for name in used - {"--line", "--page"})  # one light, one dark
    assert not re.search(r"#0000[01]", text)  # no stand-in colour is left


def test_published_numbers_are_marked_and_folded_away_from_the_embedded_world(page, tmp_path):
    table = page.source[page.source.index('id="table-ranking"') : page.source.index("the paper's own numbers")]
    assert "IRanker-3B" not in table and 'class="published"' not in table and "published: IRanker-3B" not in page.text
    assert "This run's tasks are of the embedded world" in page.text
    folder = make_run(tmp_path / "real", n=3)
    change_results(folder, lambda r: r["config"]["data"].update(raw="data/raw"))
    real = page_of(folder)
    assert "embedded world" not in real.text
    assert (
        "published: IRanker-3B" in real.text and "published: DRanker-3B" in real.text and "of other tasks" in real.text
    )
    assert real.source.count('class="published"') == 8 and "no test compares them with ours" in real.text


def test_texts_stay_texts(tmp_path):
    page = page_of(make_run(tmp_path / "tiny <i>", title=EVIL, n=4))
    assert "script" not in page.tags and "i" not in page.tags
    assert EVIL in page.text


def test_a_malformed_step_is_shown_as_one(tmp_path):
    page = page_of(make_run(tmp_path / "tiny", malformed=1.0, n=4))
    assert "malformed: the last one shown leaves" in page.text and "no idea" in page.text


def test_results_alone_are_enough(tmp_path):
    folder = make_run(tmp_path / "tiny", n=4)
    for path in [*folder.glob("*.jsonl")]:
        path.unlink()
    results = json.loads((folder / "results.json").read_text())
    save_results(folder, {k: results[k] for k in ("datasets", "macro", "paired_p")})
    page = page_of(folder)
    assert "figure-datasets" in page.ids
    gone = {f"figure-{name}" for name in ("learning", "ranks", "times", "survival", "differences")}
    assert not (gone | {"example", "about", "comparisons"}) & set(page.ids)
    assert "Paired test: p" in page.text  # paired_p of an old run


def test_a_single_system_is_enough(tmp_path):
    tasks = make_tasks(["router-cost"])
    save_results(tmp_path, collect([play_as("after", tasks, knows=1)]))
    page = page_of(tmp_path)
    assert [link for link in page.links if link[1:] not in page.ids] == []  # a part that is not there is not linked
    assert "router-cost" in page.text and "the model" in page.text and "after RL" not in page.text


def test_baselines_alone_are_enough(tmp_path):
    save_results(tmp_path, collect([play_as("mine", make_tasks(["router-cost"]), knows=1)]))
    change_results(tmp_path, lambda r: r["macro"]["mine"].update(calls_per_task=None, malformed_rate=None))
    assert "figure-datasets" in page_of(tmp_path).ids


@pytest.mark.parametrize("name", ["out_of_domain", "generic"])  # the second is the former name
def test_what_was_not_run_says_why(tmp_path, name):
    folder = make_run(tmp_path / "tiny", n=3)
    change_results(folder, lambda r: r.update(unavailable={"monot5": f"no weights {EVIL}"}))
    (folder / name).mkdir()  # where `iranker evaluate-out-of-domain --out RUN/out_of_domain` writes
    (folder / name / f"{name}.json").write_text(
        json.dumps(
            {
                "tasks": {"gsm8k": {"base": 0.5, "trained": 0.75, "stderr": 0.01}},
                "unavailable": {"mbpp": "code is not run without the flag"},
            }
        )
    )
    page = page_of(folder)
    assert {"unavailable", "generic"} <= set(page.ids)
    for words in ("monot5", EVIL, "mbpp", "code is not run without the flag", "73.69", "+25.00"):
        assert words in page.text, words
    assert "MonoT5 (not run: no weights" in page.text
    assert "mbpp (not run" not in page.text  # a task is no system
    write_tables(folder)
    assert "MonoT5 (not run: no weights" in (folder / "tables.md").read_text()


def test_zero_shot_strict_orders_and_cost_are_shown(tmp_path):
    def change(results):
        results["zero_shot"] = {"rec-movie": results["datasets"]["rec-movie"]["after"]}
        results["macro"]["after"] |= {"rr_strict": 0.5, "seconds_p50": 1.25, "dollars_per_task": 0.001}
        results["macro"]["after"]["orders"] = {"k": 4, "sd": 0.0123, "position_bias": -0.125}
        results["macro"]["bm25"]["fit_seconds"] = 3.0

    folder = make_run(tmp_path / "tiny", n=3)
    change_results(folder, change)
    page = page_of(folder)
    tables = {f"table-{name}" for name in ("zero_shot", "strict", "orders", "cost", "ranking", "numbers")}
    assert tables | {"zero-shot"} <= set(page.ids)
    for words in ("1.23", "−0.125", "25.95", "IRanker-3B, zero-shot"):
        assert words in page.text, words


def test_results_come_before_files(tmp_path):
    folder = make_run(tmp_path / "tiny", n=3)
    worked_out = complete(folder)
    assert {c["system"] for c in worked_out["comparisons"]} == {"before", "random", "popularity", "bm25"}
    assert worked_out["diagnosis"]["after"]["regret"] == 0
    change_results(folder, lambda r: r.update(comparisons=[], diagnosis={}))
    assert (complete(folder)["comparisons"], complete(folder)["diagnosis"]) == ([], {})


def test_another_system_to_test_against(run):
    found = complete(run, against="bm25")["comparisons"]
    assert {c["against"] for c in found} == {"bm25"} and {c["system"] for c in found if c["difference"] > 0} >= {
        "after"
    }
    with pytest.raises(UserError, match=r"no episodes of 'bm26'; there are after, before, bm25"):
        complete(run, against="bm26")


def test_steps_killed_repeated_or_not_finite_and_time_shares_from_them(tmp_path):
    folder = make_run(tmp_path / "tiny", n=3)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": 40, "reward/corrected": 0.9}\n{"step": 41, "reward/corrected": NaN}\nnull\n{"step": 42, "rew'
        )
    change_results(folder, lambda r: r.pop("rl_time_share"))
    page = page_of(folder)
    assert "figure-learning" in page.ids and "generate 50%" in page.text


def as_an_earlier_version(results):
    del results["roles"]
    results["config"]["rivals"] = ["random", "popularity", "bm25"]


def test_results_of_an_earlier_version_are_read(tmp_path):
    """Without roles: a system's role is that of its name."""
    folder = make_run(tmp_path / "tiny", n=3)
    now = page_of(folder).source
    change_results(folder, as_an_earlier_version)
    before = page_of(folder).source
    config = re.compile(r"<pre>.*?</pre>", re.DOTALL)
    assert config.sub("", before) == config.sub("", now) and "after RL" in before


def test_a_role_that_is_none_is_one_line(tmp_path):
    folder = make_run(tmp_path / "tiny", n=3)
    change_results(folder, lambda r: r["roles"].update(after="judge"))
    with pytest.raises(
        UserError, match=r"results\.json: the role of after is 'judge'; it has to be one of zero-shot, after"
    ):
        page_of(folder)


def test_the_pair_is_known_by_its_roles_and_not_by_names(tmp_path):
    tasks = make_tasks(n=6)
    systems = [play_as("base-7b", tasks, knows=0), play_as("mine", tasks, knows=1)]
    systems = [dataclasses.replace(s, role=role) for s, role in zip(systems, (Role.BEFORE, Role.AFTER), strict=True)]
    save_results(tmp_path, collect(systems))
    save_episodes(tmp_path, systems)
    page = page_of(tmp_path)
    assert "Macro MRR, before → mine" in page.text and "higher than before on 2 of 2" in page.text
    assert {"figure-ranks", "example"} <= set(page.ids)


def test_dollars_in_a_dataset_name_are_no_formula(tmp_path):
    folder = make_run(tmp_path / "tiny", n=3)
    text = (folder / "results.json").read_text().replace("rec-movie", r"$\\frac{ <b>")
    (folder / "results.json").write_text(text)
    assert r"$\frac{ <b>" in page_of(folder).text


def test_tables_lie_beside_the_report(tmp_path):
    folder = make_run(tmp_path / "tiny", n=3)
    assert [p.name for p in write_tables(folder)] == ["tables.tex", "tables.md", "tables.csv"]
    assert r"\caption{Table 1." in (folder / "tables.tex").read_text()
    assert "## Table 1" in (folder / "tables.md").read_text()
    assert '"published","IRanker-3B","rec-movie","rr",0.3469' in (folder / "tables.csv").read_text()


@pytest.mark.parametrize("content", [None, "{", "[]", '{"macro": {}}', '{"macro": [], "datasets": {}}'])
def test_no_results_no_report(tmp_path, content):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        write_report(tmp_path)
    assert not list(tmp_path.glob("report*"))


def test_every_data_sets_pools_are_drawn_where_they_grow():
    grows, stays = [(1.0, 2.0), (2.0, 6.0)], [(1.0, 6.0), (2.0, 6.0)]
    alone, two = (figures.learning([], grows, [], [], pools) for pools in ([], [grows, stays]))
    assert two.count("<path") == alone.count("<path") + 2
    assert figures.learning([], stays, [], [], [stays]) is None
