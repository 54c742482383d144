"""Runs side by side: paired where the tasks are the same, and said where they are not; and the command line of it."""

import pytest
import typer
from typer.testing import CliRunner

from iranker_verl.cli.report import report
from iranker_verl.errors import UserError
from iranker_verl.evaluation.report import compare as report_compare
from iranker_verl.evaluation.report.compare import names, write_comparison
from tests.evaluation.report.runs_on_disk import Page, change_results, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two runs on the same tasks, one on others."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        make_run(folder / "good", n=20),
        make_run(folder / "bad", n=20, knows=0.0, seed=1),
        make_run(folder / "other", n=20, title="another title", seed=2),
    ]


def read(runs):
    return [report_compare._read(f, n) for f, n in zip(runs, names(runs), strict=True)]


def test_the_same_tasks_are_paired(runs, tmp_path):
    found = report_compare.tests(read(runs[:2]))
    assert [(c["system"], c["against"], c["dataset"], c["n"]) for c in found] == [
        ("bad", "good", "macro", 40),
        ("bad", "good", "rec-movie", 20),
        ("bad", "good", "passage-5", 20),
    ]
    assert all(c["difference"] < 0 and c["p_holm"] < 0.01 for c in found)
    page = Page(write_comparison(runs[:2], tmp_path / "out" / "both.html").read_text())
    assert "figure-runs" in page.ids and "good · bad" in page.text
    assert "warning" not in page.source.split("</style>")[1] and "unpaired" not in page.text.replace("Unpaired:", "")
    assert not [link for link in page.links if not link.startswith("#")]


def test_other_tasks_are_not_paired(runs, tmp_path):
    # The ids are the same, the candidates' texts are not.
    assert report_compare.tests(read([runs[0], runs[2]])) == []
    page = Page(write_comparison([runs[0], runs[2]], tmp_path / "page.html").read_text())
    assert page.text.count("unpaired") == 3


def test_other_data_is_warned_of(runs, tmp_path):
    folder = make_run(tmp_path / "third", n=3, datasets=("rec-movie",))
    change_results(folder, lambda r: r.update(data_hash="f" * 16))
    page = Page(write_comparison([runs[0], folder], tmp_path / "page.html").read_text())
    assert f"not known to have the same data (good: {'d' * 16}, third: {'f' * 16})" in page.text
    assert "other datasets" in page.text
    change_results(folder, lambda r: r.pop("data_hash"))
    assert "third: unknown" in Page(write_comparison([runs[0], folder], tmp_path / "page.html").read_text()).text


def test_names_are_different(tmp_path):
    assert names([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="at least two"):
        write_comparison([runs[0], runs[0]], tmp_path / "page.html")
    with pytest.raises(UserError, match=r"results\.json: no such file"):
        write_comparison([runs[0], tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_is_no_page(runs, tmp_path):
    with pytest.raises(UserError, match=r"--out .*: it is a folder; give the page's file"):
        write_comparison(runs[:2], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: the folder cannot be made"):
        write_comparison(runs[:2], tmp_path / "file" / "page.html")


def test_a_system_that_is_named_is_compared(runs, tmp_path):
    folders = [make_run(tmp_path / name, n=5, seed=seed) for seed, name in enumerate(("one", "two"))]

    def baselines_only(results):
        for found in (results["macro"], *results["datasets"].values()):
            del found["before"], found["after"]

    for folder in folders:
        change_results(folder, baselines_only)
    with pytest.raises(UserError, match=r"no system asked a language model; name one with --system; there are .*bm25"):
        write_comparison(folders, tmp_path / "page.html")
    with pytest.raises(UserError, match=r"one/results\.json: it has no system 'after'; there are .*bm25"):
        write_comparison(folders, tmp_path / "page.html", "after")
    page = Page(write_comparison(folders, tmp_path / "page.html", "bm25").read_text())
    assert "figure-runs" in page.ids and "bm25" in page.text.lower()
    read = report_compare._read(runs[0], "good", "before")
    assert read.system == "before" and read.values != report_compare._read(runs[0], "good").values


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["macro"]["after"].pop("rr"), "after under macro has no rr"),
        (lambda r: r["datasets"]["rec-movie"]["bm25"].pop("ci95"), "bm25 under rec-movie has no ci95"),
        (lambda r: r["macro"]["bm25"].update(ci95=[0.1]), "bm25 under macro has no ci95"),
        (lambda r: r["macro"]["bm25"].update(n="many"), "bm25 under macro has no n;"),
        (lambda r: r["macro"].update(bm25=None), "bm25 under macro has no numbers"),
        (lambda r: r["datasets"].update({"rec-movie": []}), "rec-movie has to hold"),
    ],
)
def test_incomplete_numbers_are_one_line(iranker, tmp_path, change, said):
    folder = make_run(tmp_path / "run", n=3)
    change_results(folder, change)
    error = iranker(folder).exception
    assert isinstance(error, UserError) and said in str(error) and "results.json" in str(error)


@pytest.fixture
def iranker():
    app = typer.Typer()
    app.command()(report)
    return lambda *words: CliRunner().invoke(app, list(map(str, words)))


def test_command_line(iranker, runs, tmp_path):
    out = tmp_path / "page.html"
    result = iranker("--compare", *runs[:2], "--out", out)
    assert iranker("--compare", *runs[:2], "--out", out, "--system", "bm25").exit_code == 0
    assert result.exit_code == 0 and out.is_file() and result.output.strip().replace("\n", "") == str(out)
    result = iranker(runs[0], "--tables")
    assert result.exit_code == 0 and [line.split("/")[-1] for line in result.output.split()] == [
        *("report.html", "tables.tex", "tables.md", "tables.csv")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("a", "b"), "--compare"),
        (("a", "--out", "x.html"), "--out"),
        (("a", "b", "--compare", "--tables"), "--tables"),
        (("a", "--system", "bm25"), "--system is of --compare"),
    ],
)
def test_what_does_not_go_together_is_refused(iranker, words, said):
    error = iranker(*words).exception
    assert isinstance(error, UserError) and said in str(error)
