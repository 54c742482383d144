"""Compare what a policy is taught, without Ray and vLLM: plain torch, one thread, minutes a run.

``python -m benchmarks.learning_objectives --seed 1 2 3 --objective expected order --schedule one all random``

Each run starts from the tiny base of a seed (made on the first use), learns on training tasks, and is evaluated on a *development*
split: the training tasks that the base was not trained on either (:func:`iranker_verl.toy.base.hold_out`). Test tasks are never
read. Batches, optimiser steps, curriculum and loss are those of ``recipes/tiny_cpu``; states are of the policy's own episodes, and
a run ends when the model has read ``--tokens`` tokens of prompts (each is used ``EPOCHS`` times).

``objective``   ``expected`` and ``order`` are the estimators' (:mod:`iranker_verl.training.policy_loss`); ``rank`` maximises
                ``-log E[rank]`` in closed form, and ``supervised`` is cross-entropy on the best, which no policy needs: both times
                the probability of any label
``schedule``    how many candidates leave a call in training: ``one``, ``half``, ``all``, or ``random``, one of these an episode
``full``        the share of episodes that begin with full pools, whatever the curriculum says

Every run adds a line to ``runs/objectives/results.jsonl``: greedy macro MRR on the development split, excluding one candidate a
call, half of them, and all in one call, at a half and at the end of its tokens; and the seconds of training.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep.options import Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from data_prep.world import write_world
from iranker_verl.job.stages import WORLD_CANDIDATES, WORLD_HISTORY, WORLD_TEST_FRACTION
from iranker_verl.ranking import Elimination, RankingTask, by_dataset
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.elimination import Share, leaving
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.ranking.templates import load
from iranker_verl.toy.base import BaseConfig, hold_out, make_base
from iranker_verl.training import credit, policy_loss
from iranker_verl.training.curriculum import Curriculum, shortened
from iranker_verl.training.plackett_luce import draw_order, expected_rank
from iranker_verl.training.step_record import StepRecord

ROOT = Path("runs/objectives")
TASKS, STEPS, EPOCHS = 128, 8, 3  # of a batch: tasks, optimiser steps an epoch, epochs
TEMPLATE = load("label")
SCHEDULES: dict[str, tuple[int | Share, ...]] = {
    "one": (1,),
    "half": ("half",),
    "all": ("all",),
    "mixed": (1, "all"),
    "random": (1, "half", "all"),
}
CURRICULUM: dict[str, Any] = {"first_pool": 2, "rise": 0.25, "fall": 0.05, "patience": 128, "focus": 0.75}


@dataclass(frozen=True)
class Call:
    """One prompt of an episode."""

    task: RankingTask
    session: str
    ids: list[int]
    size: int
    positive: int
    most_calls: int

    @property
    def record(self) -> StepRecord:
        """What the loss reads of it, with the published reward."""
        rewards = tuple(float(i != self.positive) for i in range(self.size))
        names = tuple(str(i) for i in range(self.size))
        return StepRecord(self.task.id, self.session, names, 0.0, 0.0, (*rewards, -0.5), most_calls=self.most_calls)


class Policy:
    """A model that answers with a label."""

    def __init__(self, path: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        self.chat = ChatEncoder(self.tokenizer)
        self.labels = torch.tensor(label_tokens(self.tokenizer, 9).ids)

    def log_probs(self, prompts: Sequence[list[int]]) -> torch.Tensor:
        """Return the log-probs of the first token of the responses, (prompts, vocabulary)."""
        width = max(map(len, prompts))
        ids = torch.tensor([p + [0] * (width - len(p)) for p in prompts])  # padded behind, which attention does not see
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        last = torch.tensor([len(p) - 1 for p in prompts])
        return torch.log_softmax(self.model.lm_head(hidden[torch.arange(len(last)), last]).float(), dim=-1)

    @torch.no_grad()
    def orders(self, prompts: Sequence[list[int]], sizes: Sequence[int], greedy: bool) -> list[list[int]]:
        """Return an order of exclusion for each prompt, sampled without replacement or greedy."""
        found: list[list[int]] = [[] for _ in prompts]
        by_length = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for first in range(0, len(by_length), 128):
            rows = by_length[first : first + 128]
            scores = self.log_probs([prompts[i] for i in rows])[:, self.labels]
            valid = torch.arange(len(self.labels)) < torch.tensor([sizes[i] for i in rows])[:, None]
            scores = scores.masked_fill(~valid, -torch.inf)
            order = scores.argsort(dim=1, descending=True) if greedy else draw_order(scores, valid)
            for row, ranks in zip(rows, order.tolist(), strict=True):
                found[row] = ranks[: sizes[row]]
        return found

    def episodes(
        self, tasks: Sequence[RankingTask], schedules: Sequence[int | Share], greedy: bool
    ) -> tuple[list[float], list[Call]]:
        """Run an episode of each task; return the reciprocal ranks and the calls. Sampled episodes end where the positive leaves."""
        states = [Elimination(task, per_call=each) for task, each in zip(tasks, schedules, strict=True)]
        calls: list[Call] = []
        most = [most_calls(len(task.candidates), each) for task, each in zip(tasks, schedules, strict=True)]
        while live := [i for i, s in enumerate(states) if not (s.done or (s.decided and not greedy))]:
            asked = []
            for i in live:
                truth = states[i].ground_truth()
                ids = self.chat.encode(TEMPLATE.messages(states[i]))
                asked.append(Call(tasks[i], str(i), ids, len(truth["candidates"]), truth["target"], most[i]))
            orders = self.orders([c.ids for c in asked], [c.size for c in asked], greedy)
            for i, order in zip(live, orders, strict=True):
                states[i].step(TEMPLATE.answer_for(states[i], *order[: states[i].leaving]))
            calls += asked
        return [1 / (s.ranking().index(s.task.candidates[s.task.target].id) + 1) for s in states], calls


def most_calls(size: int, per_call: int | Share) -> int:
    """Return the calls that an episode of ``size`` candidates takes to its end."""
    calls = 0
    while size > 1:
        size -= leaving(size, per_call)
        calls += 1
    return calls


def log_rank_value(log_probs: torch.Tensor, calls: Sequence[Call], labels: torch.Tensor) -> torch.Tensor:
    """Return ``- log E[rank]`` of each positive, plus the log of the probability of any label: (calls,)."""
    scores, valid, positive = _scores(log_probs, calls, labels)
    formed = scores.masked_fill(~valid, -torch.inf).logsumexp(1)
    return formed - expected_rank(scores, positive, valid).log()


def log_best(log_probs: torch.Tensor, calls: Sequence[Call], labels: torch.Tensor) -> torch.Tensor:
    """Return the log-likelihood of the positive as the label that is excluded last, ``log softmax(-z)``, plus the form's: (calls,)."""
    scores, valid, positive = _scores(log_probs, calls, labels)
    formed = scores.masked_fill(~valid, -torch.inf).logsumexp(1)
    best = torch.log_softmax((-scores).masked_fill(~valid, -torch.inf), dim=1)
    return formed + best.gather(1, positive[:, None])[:, 0]


def _scores(
    log_probs: torch.Tensor, calls: Sequence[Call], labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    valid = torch.arange(len(labels)) < torch.tensor([c.size for c in calls])[:, None]
    return log_probs[:, labels], valid, torch.tensor([c.positive for c in calls])


Objective = Callable[[torch.Tensor, Sequence[Call], Policy], torch.Tensor]


def _estimator(name: str, log_value: Callable[..., torch.Tensor], values: str) -> Objective:
    def objective(log_probs: torch.Tensor, calls: Sequence[Call], policy: Policy) -> torch.Tensor:
        fields = policy_loss.label_fields([c.record for c in calls], policy.tokenizer, name)
        tokens = fields[policy_loss.LABEL_TOKENS].to_padded_tensor(policy_loss.ANY_OTHER)
        return log_value(log_probs, tokens, fields[values].to_padded_tensor(0.0))

    return objective


OBJECTIVES: dict[str, Objective] = {
    "expected": _estimator(credit.EXPECTED_ESTIMATOR, policy_loss.log_mean_value, policy_loss.LABEL_VALUES),
    "order": _estimator(credit.ORDER_ESTIMATOR, policy_loss.log_order_value, policy_loss.LABEL_GAINS),
    "rank": lambda log_probs, calls, policy: log_rank_value(log_probs, calls, policy.labels),
    "supervised": lambda log_probs, calls, policy: log_best(log_probs, calls, policy.labels),
}


def seed_folder(seed: int) -> tuple[Path, list[RankingTask], list[RankingTask]]:
    """Return the base of a seed, its training tasks and its development tasks; make what is not there."""
    folder = ROOT / str(seed)
    if not (folder / "data").exists():
        write_world(folder / "raw", seed)
        options = Options(
            history=WORLD_HISTORY, candidates=WORLD_CANDIDATES, test_fraction=WORLD_TEST_FRACTION, seed=seed
        )
        prepare(folder / "raw", folder / "data", TEMPLATE, options, None, print)
    tasks = read_tasks(folder / "data" / "train.parquet", TEMPLATE)
    base = make_base(tasks, TEMPLATE, folder / "base", seed)["path"]
    return Path(base), *hold_out(tasks, BaseConfig().validation, seed)


def evaluate(policy: Policy, tasks: Sequence[RankingTask]) -> dict[str, float]:
    """Return greedy macro MRR by schedule."""
    found = {}
    for name in ("one", "half", "all"):
        rr, _ = policy.episodes(tasks, [SCHEDULES[name][0]] * len(tasks), greedy=True)
        by: dict[str, list[float]] = defaultdict(list)
        for task, value in zip(tasks, rr, strict=True):
            by[task.dataset].append(value)
        found[name] = round(fmean(fmean(values) for values in by.values()), 4)
    return found


def train(
    seed: int, objective: str, schedule: str, tokens: int, lr: float, full: float, epochs: int, steps: int
) -> dict[str, Any]:
    """Train once and return the line of the run."""
    base, training, development = seed_folder(seed)
    torch.manual_seed(seed)
    rng = random.Random(f"{seed}:{objective}:{schedule}")
    policy = Policy(base)
    rows: dict[str, dict[int, int]] = defaultdict(dict)
    for index, task in enumerate(training):
        rows[task.dataset][index] = len(task.candidates)
    curriculum = Curriculum(rows, seed=seed, **CURRICULUM)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.0)
    line: dict[str, Any] = {
        "seed": seed, "objective": objective, "schedule": schedule, "lr": lr, "full": full, "epochs": epochs, "optimiser_steps": steps,
        
    }  # fmt: skip
    read, step, seconds = 0, 0, 0.0
    while read < tokens:
        begun = time.monotonic()
        tasks = []
        for index in curriculum.draw(TASKS):
            task = training[index]
            whole = rng.random() < full
            tasks.append(task if whole else shortened(task, curriculum.size[task.dataset], f"{seed}:{step}"))
        schedules = [rng.choice(SCHEDULES[schedule]) for _ in tasks]
        rr, calls = policy.episodes(tasks, schedules, greedy=False)
        observe(curriculum, tasks, rr)
        read += sum(len(c.ids) + 2 for c in calls)
        weights = credit.row_weights([c.record for c in calls]).tolist()
        update(policy, optimizer, list(zip(calls, weights, strict=True)), OBJECTIVES[objective], epochs, steps, rng)
        step += 1
        seconds += time.monotonic() - begun
        if "middle" not in line and read >= tokens / 2:
            line["middle"] = evaluate(policy, development)
    sizes = sorted(curriculum.size.values())
    return line | {
        "after": evaluate(policy, development),
        "tokens": read,
        "steps": step,
        "seconds": round(seconds),
        "sizes": sizes,
    }


def observe(curriculum: Curriculum, tasks: Sequence[RankingTask], rr: Sequence[float]) -> None:
    """Tell the curriculum of a batch of sampled episodes."""
    metrics: dict[str, float] = {}
    for name, own in by_dataset(tasks).items():
        mine = [i for i, t in enumerate(tasks) if t.dataset == name]
        metrics[f"episode/rr/{name}"] = fmean(rr[i] for i in mine)
        metrics[f"episode/tasks/{name}"] = len(mine)
        metrics[f"episode/candidates/{name}"] = fmean(len(t.candidates) for t in own)
    curriculum.observe(metrics)


def update(
    policy: Policy,
    optimizer: Any,
    rows: list[tuple[Call, float]],
    objective: Objective,
    epochs: int,
    steps: int,
    rng: random.Random,
) -> None:
    """Take the optimiser steps of a batch."""
    for _ in range(epochs):
        rng.shuffle(rows)
        for part in range(steps):
            mine = sorted(rows[part::steps], key=lambda row: len(row[0].ids))
            middle = -(-len(mine) // 2)
            for group in (mine[:middle], mine[middle:]):
                calls = [call for call, _ in group]
                values = objective(policy.log_probs([c.ids for c in calls]), calls, policy)
                loss = -(values * torch.tensor([weight for _, weight in group])).sum() / len(mine)
                loss.backward()
            torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()


def main() -> None:
    """Run every combination of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--objective", nargs="+", default=["order"], choices=list(OBJECTIVES))
    parser.add_argument("--schedule", nargs="+", default=["one"], choices=list(SCHEDULES))
    parser.add_argument("--tokens", type=int, default=700_000)
    parser.add_argument("--lr", type=float, nargs="+", default=[3e-4])
    parser.add_argument("--full", type=float, nargs="+", default=[0.0])
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--steps", type=int, default=STEPS, help="optimiser steps a batch and epoch")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed, objective, schedule, lr, full in product(
        given.seed, given.objective, given.schedule, given.lr, given.full
    ):
        line = train(seed, objective, schedule, given.tokens, lr, full, given.epochs, given.steps)
        print(json.dumps(line), flush=True)
        with (ROOT / "results.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
