"""One table from several zero-shot runs: what is put together, and what is refused."""

from __future__ import annotations

import json

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines import BASELINES
from iranker_verl.evaluation.evaluate import write_results
from iranker_verl.evaluation.metrics import measure
from iranker_verl.evaluation.records import Record, SystemResult
from iranker_verl.evaluation.report.tables import main_table
from iranker_verl.evaluation.report.tables_text import markdown
from iranker_verl.evaluation.systems import role_by_name
from iranker_verl.evaluation.zero_shot import merge
from iranker_verl.files import locked, write_jsonl
from iranker_verl.ranking import DATASETS, Candidate, RankingTask

BASES = {"rec": "aaa", "passage": "bbb"}


def records(ranks, system):
    """A system's records: the best candidate of task i is at rank 1 / rr, the others in their order."""
    found = []
    for dataset, own in ranks.items():
        for i, rr in enumerate(own.get(system, [])):
            candidates = tuple(Candidate(f"c{k}", f"text {k}") for k in range(6))
            task = RankingTask.with_positive(f"{dataset}:{i}", DATASETS[dataset], dataset, "context", candidates, "c0")
            ranking = [c.id for c in candidates[1:]]
            ranking.insert(round(1 / rr) - 1, "c0")
            [values] = measure([task], [ranking])
            found.append(Record(task, tuple(ranking), values))
    return tuple(found)


def make_run(folder, ranks, *, zero_shot=True, seed=1, base=None):
    """``ranks``: {dataset: {system: [reciprocal rank of each task]}}, as a run leaves them."""
    folder.mkdir()
    systems = sorted({system for own in ranks.values() for system in own})
    made_of = {
        "template_hash": "t",
        "versions": {"verl": "0.9.1"},
        "config": {},
        "time_s": {"total": 10.0},
        "peak_rss_bytes": len(ranks),
        "base": {"hash": base} if base else None,
    }
    results = [SystemResult(s, records(ranks, s), 1.0, role=role_by_name(s, baseline=s in BASELINES)) for s in systems]
    if zero_shot:
        made_of["zero_shot"] = {d: {"rr": 0.5} for d in ranks}
        made_of["unseen"] = {
            "trained": ["x"],
            "tested": list(ranks),
            "queries": 0,
            "shared_queries": 0,
            "data_hash": "h",
        }
    write_results(folder, results, seed=seed, made_of=made_of)
    for result in results:
        write_jsonl(folder / f"episodes-{result.system}.jsonl", [r.to_json() for r in result.records])
    return folder


@pytest.fixture
def runs(tmp_path):
    rec = {"rec-movie": {"before": [0.5, 0.5], "after": [1.0, 0.5], "popularity": [0.2, 0.2]}}
    passage = {
        "passage-7": {"before": [0.25] * 4, "after": [0.25] * 4},
        "passage-5": {"before": [1.0], "after": [0.5]},
    }
    return [
        make_run(tmp_path / "zs-passage", passage, base=BASES["passage"]),
        make_run(tmp_path / "zs-rec", rec, base=BASES["rec"]),
    ]


def test_the_runs_become_one(runs, tmp_path):
    out = tmp_path / "all"
    results = merge(out, runs)
    assert json.loads((out / "results.json").read_text()) == results
    assert list(results["datasets"]) == ["rec-movie", "passage-5", "passage-7"]  # the paper's order
    assert results["zero_shot"]["rec-movie"]["rr"] == 0.75
    assert results["roles"] == {"zero-shot": "zero-shot", "before": "before", "popularity": "baseline"}
    assert {c["against"] for c in results["comparisons"]} == {"zero-shot"}
    assert "after" not in results["macro"] and list(results["macro"])[:2] == ["zero-shot", "before"]
    macro = results["macro"]["zero-shot"]
    # every dataset weighs the same: (0.75 + 0.5 + 0.25) / 3
    assert macro["rr"] == pytest.approx(0.5) and (macro["n"], macro["n_datasets"]) == (7, 3)
    low, high = macro["ci95"]
    assert low <= 0.5 + 1e-9 and high >= 0.5 - 1e-9
    assert results["macro"]["before"]["rr"] == pytest.approx((0.5 + 1 + 0.25) / 3)
    popularity = results["macro"]["popularity"]
    assert (popularity["n"], popularity["n_datasets"], popularity["calls_per_task"]) == (2, 1, None)
    assert popularity["ci95"] == pytest.approx([0.2, 0.2])
    assert 0 < results["paired_p"] <= 1
    assert results["time_s"]["total"] == 20.0 and results["peak_rss_bytes"] == 2
    assert any("base of its own" in line for line in results["about"])
    lines = [json.loads(line) for line in (out / "episodes-zero-shot.jsonl").read_text().splitlines()]
    assert len(lines) == 7 and not (out / "episodes-after.jsonl").exists()


def test_the_table_has_a_dash_where_a_baseline_does_not_apply(runs, tmp_path):
    lines = markdown([main_table(merge(tmp_path / "all", runs))]).splitlines()
    assert lines[2] == r"| system | Movie | P-5 | P-7 | macro |"
    assert lines[4] == "| **zero-shot** | **75.00** | **50.00** | **25.00** | **50.00** |"
    assert lines[6] == "| popularity | 20.00 | – | – | 20.00 (1 of 3) |"


def test_a_run_on_everything_stands_beside(runs, tmp_path):
    ranks = {
        d: {"after": [1.0] * n} for d, n in (("rec-movie", 2), ("passage-5", 1), ("passage-7", 4), ("rec-game", 3))
    }
    everything = make_run(tmp_path / "every", ranks, zero_shot=False)
    results = merge(tmp_path / "all", runs, everything)
    assert results["macro"]["after"]["rr"] == 1.0 and results["macro"]["after"]["n_datasets"] == 3
    assert "rec-game" not in results["datasets"]
    fewer = make_run(tmp_path / "fewer", ranks | {"passage-7": {"after": [1.0] * 3}}, zero_shot=False)
    with pytest.raises(UserError, match="same tasks of passage-7"):
        merge(tmp_path / "all", runs, fewer)


def test_another_process_that_writes_there_is_not_disturbed(runs, tmp_path):
    with locked(tmp_path / "all"), pytest.raises(UserError, match="another iranker is writing there"):
        merge(tmp_path / "all", runs)


def test_what_does_not_belong_together_is_refused(runs, tmp_path):
    out = tmp_path / "all"
    rec = {"rec-movie": {"before": [1.0], "after": [1.0]}}
    with pytest.raises(UserError, match="not a zero-shot run"):
        merge(out, [*runs, make_run(tmp_path / "usual", {"rec-game": rec["rec-movie"]}, zero_shot=False)])
    with pytest.raises(UserError, match=r"rec-movie was tested in .*zs-rec and in .*again"):
        merge(out, [*runs, make_run(tmp_path / "again", rec)])
    with pytest.raises(UserError, match="seed 2, but"):
        merge(out, [*runs, make_run(tmp_path / "seed", {"rec-game": rec["rec-movie"]}, seed=2)])
    assert not out.exists()
