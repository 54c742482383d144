"""What a run records of each RL step: ``metrics.jsonl`` (one JSON object a line) and one line on the console.

========================  ============================================================================================
``step``                  RL step, from 1; a resumed run writes the steps since its checkpoint again
``reward/mean``           mean reward of a step's exclusions; ``reward/corrected``: minus the expected reward, so with one
                          positive at most 1 / N, which falls as pools grow
``reward/malformed``      share of malformed responses
``reward/part/<name>``    mean of each number that the reward function returned
``episode/rr``            mean reciprocal rank of the positive in the training episodes (sampled at temperature 1)
``episode/calls``         mean LLM calls an episode; ``episode/rr/<dataset>`` per dataset
``episode/candidates``    mean number of candidates that an episode begins with (fewer at first, where there is a curriculum)
                          per dataset: ``episode/candidates/<dataset>``; ``episode/share/<dataset>`` of the episodes;
                          ``episode/tasks/<dataset>``, their number. Those of a single call (``iranker.one_call``) are in the
                          shares only
``episode/skill``         mean skill (:func:`~iranker_verl.training.curriculum.skill`): 0 for random episodes, 1 for perfect ones,
                          however many candidates they begin with
``tokens/step``           tokens of the step's prompts and responses
``survival/<k>``          share of pools of k candidates that the positive survives
``time/*``                seconds of the step: ``generate`` (rollout), ``forward`` (log-probs, values), ``backward``
                          (updates), ``other`` (the rest, a checkpoint included) and ``step``, from verl's own timers
``val/mrr``               macro MRR of a validation (``trainer.test_freq``; greedy, whole tasks); ``val/mrr/<dataset>``
``verl/*``                verl's own metrics of the actor, critic, credit and rollout correction
========================  ============================================================================================
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iranker_verl.console import say
from iranker_verl.errors import NOT_JSON
from iranker_verl.files import make_folder, mark, write_jsonl
from iranker_verl.training.curriculum import skill
from iranker_verl.training.step_record import StepRecord

GENERATE = ("gen",)
FORWARD = ("old_log_prob", "ref", "values")
BACKWARD = ("update_critic", "update_actor")


def step_metrics(steps: Sequence[StepRecord]) -> dict[str, float]:
    """Return the metrics of one batch from the records of its real rows; means of nothing are NaN."""
    episodes = {step.session: step for step in steps if step.whole}
    largest: dict[str, int] = defaultdict(int)
    for step in steps:
        largest[step.session] = max(largest[step.session], step.pool_size)
    datasets = [step.dataset for step in {step.session: step for step in steps}.values()]
    by_dataset: dict[str, list[float]] = defaultdict(list)
    began: dict[str, list[float]] = defaultdict(list)
    for session, step in episodes.items():
        by_dataset[step.dataset].append(step.reciprocal_rank)
        began[step.dataset].append(largest[session])
    survived: dict[int, list[float]] = defaultdict(list)
    parts: dict[str, list[float]] = defaultdict(list)
    for step in steps:
        survived[step.pool_size].append(step.positive_survived)
        for name, value in step.reward_parts.items():
            parts[name].append(value)
    metrics = {
        "reward/mean": _mean([step.reward for step in steps]),
        "reward/corrected": _mean([step.reward - step.expected_reward for step in steps]),
        "reward/malformed": _mean([step.malformed for step in steps]),
        "episode/rr": _mean([step.reciprocal_rank for step in episodes.values()]),
        "episode/skill": _mean([skill(step.reciprocal_rank, largest[name]) for name, step in episodes.items()]),
        "episode/calls": _mean([step.calls for step in episodes.values()]),
        "episode/candidates": _mean([largest[name] for name in episodes]),
    }
    metrics |= {f"reward/part/{name}": _mean(values) for name, values in sorted(parts.items())}
    metrics |= {f"episode/rr/{name}": _mean(values) for name, values in sorted(by_dataset.items())}
    metrics |= {f"episode/candidates/{name}": _mean(values) for name, values in sorted(began.items())}
    metrics |= {f"episode/share/{name}": datasets.count(name) / len(datasets) for name in sorted(set(datasets))}
    metrics |= {
        f"episode/tasks/{name}": float(len({s.task for s in episodes.values() if s.dataset == name}))
        for name in sorted(began)
    }
    metrics |= {f"survival/{size}": _mean(values) for size, values in sorted(survived.items())}
    return metrics


def validation(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return ``val/mrr``, overall and by dataset, from verl's validation metrics; empty where there was no validation."""
    found = {m[1]: float(v) for k, v in metrics.items() if (m := re.fullmatch(r"val-\w+/(.+)/rr/mean@\d+", k))}
    return {"val/mrr": _mean(list(found.values())), **{f"val/mrr/{d}": v for d, v in found.items()}} if found else {}


def time_shares(timing: Mapping[str, float]) -> dict[str, float]:
    """Return verl's timers of a step, in seconds, summed into generate, forward, backward, other and step."""
    parts = {
        name: sum(timing.get(k, 0.0) for k in keys)
        for name, keys in (("generate", GENERATE), ("forward", FORWARD), ("backward", BACKWARD))
    }
    total = timing.get("step", sum(parts.values()))
    return {**{f"time/{k}": v for k, v in parts.items()}, "time/other": total - sum(parts.values()), "time/step": total}


class MetricsLog:
    """The metrics file of a run. Lines of steps after ``last_step``, which a crash has lost, are dropped at the start."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Open ``path`` to append to; ``last_step`` is that of the checkpoint."""
        self.path = path
        self.last_step, self._incomplete = last_step, 0  # steps whose line is written, and is to be written again
        make_folder(self.path.parent)
        mark(self.path.parent)
        write_jsonl(self.path, [line for line in read_metrics(self.path) if line["step"] <= last_step])

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Return the lines written so far."""
        return read_metrics(self.path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a step's line as it is."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.last_step = line["step"]

    def append(
        self, step: int, steps: int, metrics: Mapping[str, Any], timing: Mapping[str, float], *, complete: bool = True
    ) -> None:
        """Write the line of ``step`` of ``steps``, from verl's metrics and timers, in place of an incomplete one of that step.

        A line that is not ``complete`` stands for a step that is saved before it is validated; of the others a summary is logged.
        """
        ours = ("reward/", "episode/", "survival/", "tokens/")
        verls = (
            "actor/",
            "perf/computed_over_real_tokens",
            "perf/slowest_rank_over_mean",
            "critic/",
            "credit/",
            "elimination/",
            "rollout_corr/",
            "training/optimizer_steps",
            "val-",
            "response_length/mean",
        )
        line: dict[str, Any] = {"step": step}
        line |= {k: float(v) for k, v in metrics.items() if k.startswith(ours)}
        line |= validation(metrics)
        line |= time_shares(timing)
        line |= {f"verl/{k}": float(v) for k, v in metrics.items() if k.startswith(verls) and _is_number(v)}
        written = {k: v if math.isfinite(v) else None for k, v in line.items()}
        if step == self._incomplete:
            write_jsonl(self.path, [*(one for one in self.lines if one["step"] < step), written])
        else:
            self.write(written)
        self.last_step, self._incomplete = step, 0 if complete else step
        if not complete:
            return
        failed = f"{lost} episodes failed  " if (lost := int(line.get("verl/elimination/failed_sessions", 0))) else ""
        say(
            f"step {step}/{steps}  skill {line['episode/skill']:.3f}  episode RR {line['episode/rr']:.3f} of {line['episode/candidates']:.1f}  "
            f"malformed {line['reward/malformed']:.1%}  {failed}{line['time/step']:.1f} s "
            f"(generate {line['time/generate']:.1f}, forward {line['time/forward']:.1f}, backward {line['time/backward']:.1f})"
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics file, without a last line cut short by a crash; empty where there is no file."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except NOT_JSON:
            break
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
