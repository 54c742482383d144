"""What a run writes down: means by hand, a file that survives crashes, and JSON that any reader takes."""

import json
import math

import pytest

from iranker_verl.training.metrics_log import MetricsLog, read_metrics, step_metrics, time_shares, validation
from iranker_verl.training.step_record import StepRecord


def step(session, size, reward, dataset, rr, calls, malformed, survived):
    return StepRecord(
        "t",
        session,
        tuple("abc"[:size]),
        reward,
        (size - 1) / size,
        reward_parts={"format": 1.0 - malformed},
        malformed=malformed,
        positive_survived=survived,
        dataset=dataset,
        reciprocal_rank=rr,
        calls=calls,
    )


def test_metrics_of_a_batch_by_hand():
    metrics = step_metrics(
        [
            step("a", 3, 1.0, "rec-movie", 0.5, 2, False, True),
            step("a", 2, 0.0, "rec-movie", 0.5, 2, False, False),
            step("b", 3, -0.5, "passage-5", 1.0, 2, True, True),
            step("b", 2, 1.0, "passage-5", 1.0, 2, False, True),
            step("c", 3, 0.0, "passage-5", 0.25, 1, False, False),
        ]
    )
    assert metrics == pytest.approx(
        {
            "reward/mean": 1.5 / 5,
            "reward/corrected": (1.5 - 3 * (2 / 3) - 2 * 0.5) / 5,
            "reward/malformed": 1 / 5,
            "reward/part/format": 4 / 5,
            "episode/rr": (0.5 + 1.0 + 0.25) / 3,  # over episodes, not rows
            "episode/skill": ((0.5 - 11 / 18) + (1 - 11 / 18) + (0.25 - 11 / 18))
            / 3
            / (1 - 11 / 18),  # of three candidates
            "episode/calls": 5 / 3,
            "episode/candidates": 3.0,
            "episode/rr/passage-5": 0.625,
            "episode/rr/rec-movie": 0.5,
            "episode/candidates/passage-5": 3.0,
            "episode/candidates/rec-movie": 3.0,
            "episode/tasks/passage-5": 1.0,
            "episode/tasks/rec-movie": 1.0,
            "episode/share/passage-5": 2 / 3,
            "episode/share/rec-movie": 1 / 3,
            "survival/2": 0.5,
            "survival/3": 2 / 3,
        }
    )
    assert [k for k in metrics if k.startswith("survival")] == ["survival/2", "survival/3"]


def test_time_by_hand():
    timing = {"step": 10.0, "gen": 4.0, "old_log_prob": 1.0, "ref": 0.5, "update_actor": 2.0, "update_critic": 1.0}
    assert time_shares(timing | {"reward": 0.25}) == {
        "time/generate": 4.0,
        "time/forward": 1.5,
        "time/backward": 3.0,
        "time/other": 1.5,
        "time/step": 10.0,
    }
    assert time_shares({"step": 2.0})["time/other"] == 2.0


OURS = {"episode/skill": 0.4, "reward/malformed": 0.0, "episode/rr": 0.5, "episode/candidates": 6.0}


def append(log, step, **metrics):
    log.append(step, 9, OURS | metrics, {"step": 1.0, "gen": 0.5})


def test_a_line_a_step(tmp_path, capsys):
    path = tmp_path / "deep" / "metrics.jsonl"
    log = MetricsLog(path, last_step=0)
    assert read_metrics(path) == []
    append(log, 1, **{"actor/pg_loss": 0.5, "actor/note": "text", "perf/mfu": 1.0, "actor/lost": float("inf")})
    append(log, 2)
    lines = read_metrics(path)
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0] == {
        "step": 1,
        **OURS,
        **time_shares({"step": 1.0, "gen": 0.5}),
        "verl/actor/pg_loss": 0.5,
    }
    out = capsys.readouterr().out
    assert "failed" not in out
    append(log, 3, **{"elimination/failed_sessions": 2.0})
    assert "2 episodes failed" in capsys.readouterr().out
    assert "iranker| step 1/9" in out and "skill 0.400" in out and "malformed 0.0%" in out


def test_a_number_that_is_none_is_null_in_json(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    append(log, 1, **{"episode/rr": float("nan"), "reward/mean": float("inf"), "actor/kl": float("nan")})
    text = path.read_text()
    line = json.loads(text, parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert line["episode/rr"] is None and line["reward/mean"] is None and "verl/actor/kl" not in line
    # and a resume keeps it
    MetricsLog(path, 1)
    assert path.read_text() == text


@pytest.mark.parametrize(("last_step", "kept"), [(0, []), (2, [1, 2]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])])
def test_a_resume_drops_what_came_after_its_checkpoint(tmp_path, last_step, kept):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (1, 2, 3, 4):
        append(log, step)
    again = MetricsLog(path, last_step)
    assert [line["step"] for line in read_metrics(path)] == kept
    append(again, last_step + 1)
    assert [line["step"] for line in read_metrics(path)] == [*kept, last_step + 1]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".iranker", "metrics.jsonl"]


@pytest.mark.parametrize("cut", [1, 2, 10, 40])
def test_a_last_line_cut_short_is_left_out(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    append(log, 1)
    append(log, 2)
    content = path.read_bytes()
    path.write_bytes(content[: -cut - 1])  # the newline, and some of the line
    assert [line["step"] for line in read_metrics(path)] == [1]
    # a resume starts on a line of its own
    append(MetricsLog(path, 5), 2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_no_file_is_no_lines(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_means_of_nothing():
    assert math.isnan(step_metrics([])["episode/rr"])


def test_a_step_that_is_saved_before_it_is_validated_has_its_line_at_once_and_one_line_in_the_end(tmp_path, capsys):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    append(log, 1)
    capsys.readouterr()
    log.append(2, 9, OURS | {"tokens/step": 7.0}, {"gen": 0.5, "update_actor": 0.25}, complete=False)
    assert capsys.readouterr().out == ""
    assert [line["step"] for line in read_metrics(path)] == [1, 2]
    assert (read_metrics(path)[1]["tokens/step"], read_metrics(path)[1]["time/step"]) == (7.0, 0.75)
    append(log, 2, **{"val-aux/rec-movie/rr/mean@1": 0.5})
    assert [line.get("val/mrr") for line in read_metrics(path)] == [None, 0.5]
    append(log, 3)
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3]


def test_validation_is_a_macro_mean_of_greedy_rankings():
    verls = {
        "val-aux/rec-movie/rr/mean@1": 0.5,
        "val-aux/passage-5/rr/mean@1": 1.0,
        "val-aux/rec-movie/calls/mean@1": 5,
    }
    found = validation(verls | {"val-core/rec-movie/reward/mean@1": 0.1, "actor/lr": 1.0})
    assert found == {"val/mrr": 0.75, "val/mrr/rec-movie": 0.5, "val/mrr/passage-5": 1.0}
    assert validation({"actor/lr": 1.0}) == {}
