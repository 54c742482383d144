"""`iranker score`: what it prints, and the old way to it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from iranker_verl.cli.evaluate import evaluate
from iranker_verl.cli.score import score
from iranker_verl.errors import UserError

APP = typer.Typer()
APP.command()(score)
APP.command()(evaluate)


def run(*arguments):
    result = CliRunner().invoke(APP, list(map(str, arguments)), env={"COLUMNS": "160"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def files(tmp_path):
    """Two documents of equal score in a run; the second one is relevant."""
    (tmp_path / "tie.run").write_text("1 Q0 d1 1 5 s\n1 Q0 d2 2 5 s\n2 Q0 d1 1 5 s\n")
    (tmp_path / "qrels").write_text("1 0 d1 0\n1 0 d2 1\n")
    return tmp_path / "tie.run", tmp_path / "qrels"


def test_ties_have_one_rank_in_all_measures(files):
    result = run("score", *files, "--measures", "nDCG@10,RR,RR@10,Success@1,Compat,RR(rel=1,judged_only=True)")
    values = [line.split()[-1] for line in result.stdout.splitlines() if line.split() and line.split()[-1] == "1.0000"]
    assert len(values) == 6 and result.stderr == ""
    assert (
        "1 judged queries, 0 of them not in the run (they count 0); 1 queries of the run are not judged"
        in result.stdout
    )


def test_for_machines(files):
    content = json.loads(run("score", *files, "--json").stdout)
    assert content == {
        "means": {"nDCG@10": 1.0, "RR": 1.0, "Success@1": 1.0},
        **{"judged": 1, "missing": 0, "unjudged": 1, "judged_documents": 2},
    }


def test_a_run_of_which_nothing_is_judged_says_so(files):
    found, qrels = files
    qrels.write_text("1 0 D1 1\n")
    assert (
        "nothing that the run ranks is judged: do tie.run and qrels name documents alike?"
        in run("score", found, qrels).stdout
    )


def test_the_old_way_prints_the_same_and_one_line_that_tells_the_new_one(files):
    found, qrels = files
    old = run("evaluate", "--run", found, "--qrels", qrels, "--measures", "RR")
    assert old.stdout == run("score", found, qrels, "--measures", "RR").stdout
    assert old.stderr == f"evaluate --run is now: iranker score {found} {qrels}\n"


def test_mistakes_are_one_line(files, tmp_path):
    found, qrels = files
    with pytest.raises(UserError, match="unknown measure 'nDGC'"):
        run("score", found, qrels, "--measures", "nDGC")
    with pytest.raises(UserError, match="none: cannot be read"):
        run("score", tmp_path / "none", qrels)
