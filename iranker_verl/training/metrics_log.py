"""What a run writes down a step: ``metrics.jsonl`` (one JSON object a line) and one line on the console.

========================  ============================================================================================
``step``                  RL step, from 1; after a resume, steps since the checkpoint are written again, once
``reward/mean``           mean reward of a step's exclusions; ``reward/corrected`` minus a random valid exclusion's
``reward/malformed``      share of answers that name no candidate
``reward/part/<name>``    mean of each number that the reward function returned
``episode/rr``            mean reciprocal rank of the positive in the training episodes (sampled at temperature 1)
``episode/calls``         mean LLM calls an episode; ``episode/rr/<dataset>`` per dataset
``episode/candidates``    mean number of candidates that an episode begins with (fewer at first, where there is a curriculum)
                          per dataset: ``episode/candidates/<dataset>``; ``episode/share/<dataset>`` of the episodes
``tokens/step``           tokens of the step's prompts and answers: what the LLM has read and written
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
from iranker_verl.files import make_folder, mark, write_jsonl
from iranker_verl.training.credit import StepRow

GENERATE = ("gen",)
FORWARD = ("old_log_prob", "ref", "values")
BACKWARD = ("update_critic", "update_actor")


def step_metrics(rows: Sequence[StepRow], fields: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of one batch from its real rows; ``fields[i]`` is what the agent loop stored with ``rows[i]``."""
    episodes = {row.session: field for row, field in zip(rows, fields, strict=True)}
    largest: dict[str, int] = defaultdict(int)
    for row in rows:
        largest[row.session] = max(largest[row.session], row.pool_size)
    by_dataset: dict[str, list[float]] = defaultdict(list)
    began: dict[str, list[float]] = defaultdict(list)
    for session, field in episodes.items():
        by_dataset[field["data_source"]].append(field["rr"])
        began[field["data_source"]].append(largest[session])
    survived: dict[int, list[float]] = defaultdict(list)
    for row, field in zip(rows, fields, strict=True):
        survived[row.pool_size].append(field["survived"])
    metrics = {
        "reward/mean": _mean([r.reward for r in rows]),
        "reward/corrected": _mean([r.reward - r.expected for r in rows]),
        "reward/malformed": _mean([f["malformed"] for f in fields]),
        "episode/rr": _mean([f["rr"] for f in episodes.values()]),
        "episode/calls": _mean([f["calls"] for f in episodes.values()]),
        "episode/candidates": _mean(list(largest.values())),
    }
    parts: dict[str, list[float]] = defaultdict(list)
    for field in fields:
        for name, value in field["parts"].items():
            parts[name].append(value)
    metrics |= {f"reward/part/{name}": _mean(values) for name, values in sorted(parts.items())}
    metrics |= {f"episode/rr/{name}": _mean(values) for name, values in sorted(by_dataset.items())}
    metrics |= {f"episode/candidates/{name}": _mean(values) for name, values in sorted(began.items())}
    metrics |= {f"episode/share/{name}": len(values) / len(episodes) for name, values in sorted(began.items())}
    metrics |= {f"survival/{size}": _mean(values) for size, values in sorted(survived.items())}
    return metrics


def validation(metrics: Mapping[str, Any]) -> dict[str, float]:
    """``val/mrr`` and its datasets, from verl's validation metrics; empty where there was no validation."""
    found = {m[1]: float(v) for k, v in metrics.items() if (m := re.fullmatch(r"val-\w+/(.+)/rr/mean@\d+", k))}
    return {"val/mrr": _mean(list(found.values())), **{f"val/mrr/{d}": v for d, v in found.items()}} if found else {}


def time_shares(timing: Mapping[str, float]) -> dict[str, float]:
    """verl's timers of a step, in seconds, summed into generate, forward, backward, other and step."""
    total = timing.get("step", 0.0)
    parts = {
        name: sum(timing.get(k, 0.0) for k in keys)
        for name, keys in (("generate", GENERATE), ("forward", FORWARD), ("backward", BACKWARD))
    }
    return {**{f"time/{k}": v for k, v in parts.items()}, "time/other": total - sum(parts.values()), "time/step": total}


class MetricsLog:
    """Appends to ``path``; lines of steps after ``last_step`` (lost with a crash) are dropped at start."""

    def __init__(self, path: str, last_step: int) -> None:
        self.path = Path(path)
        make_folder(self.path.parent)
        mark(self.path.parent)
        write_jsonl(self.path, [line for line in read(self.path) if line["step"] <= last_step])

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What is written so far."""
        return read(self.path)

    def append(self, step: int, steps: int, metrics: Mapping[str, Any], timing: Mapping[str, float]) -> None:
        ours = ("reward/", "episode/", "survival/", "tokens/")
        verls = (
            "actor/",
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
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: v if math.isfinite(v) else None for k, v in line.items()}) + "\n")
        failed = f"{lost} episodes failed  " if (lost := int(line.get("verl/elimination/failed_sessions", 0))) else ""
        say(
            f"step {step}/{steps}  reward {line['reward/corrected']:+.3f} over random  "
            f"episode RR {line['episode/rr']:.3f} of {line['episode/candidates']:.1f}  "
            f"malformed {line['reward/malformed']:.1%}  {failed}{line['time/step']:.1f} s "
            f"(generate {line['time/generate']:.1f}, forward {line['time/forward']:.1f}, backward {line['time/backward']:.1f})"
        )

    def add_save(self, seconds: float) -> None:
        """Add the time of the checkpoint to the last line's step, among ``other``."""
        *lines, last = self.lines
        last |= {"time/other": last["time/other"] + seconds, "time/step": last["time/step"] + seconds}
        write_jsonl(self.path, [*lines, last])


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line cut short by a crash is left out. Empty where there is no file."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
