"""With thoughts against without, on two-hop matching (:mod:`iranker_verl.toy.two_hop`), in plain torch on one CPU thread.

For every seed a base of two layers learns each hop as a question of its own, and the forms of both prompts with answers, and thoughts,
at random, until it can do each hop: when that is, depends on the seed, and a base that cannot find candidates has thoughts without
consequences, of which nothing is learned. Then reinforcement learning alone, from this base, by each of

``label``           no thought; the exact mean over all exclusions (``exclusion_expected``)
``label grpo``      no thought; sampled exclusions against others from the same pool (``exclusion_grpo``), as with thoughts
``think``           a thought, then the label; ``exclusion_grpo`` on all tokens
``think expected``  the thought is paid the mean reward over all labels that may follow it, and the label learns from all of them

for ``--tokens`` tokens read and written. Each visited state is answered ``BRANCH`` times, and one of the answers decides how the episode continues.
Every run adds a line to ``runs/reasoning/results.jsonl``: greedy MRR on new tasks before and after, the share of right thoughts, tokens
and seconds.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from iranker_verl.errors import UserError
from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.chat import ChatEncoder
from iranker_verl.ranking.label_tokens import label_tokens
from iranker_verl.toy import two_hop
from iranker_verl.toy.base import BaseConfig, make_optimizers, new_model
from iranker_verl.toy.batches import accumulate_gradient, encode
from iranker_verl.toy.circuits import copy_values, induce, look_back
from iranker_verl.toy.questions import Sample
from iranker_verl.toy.tokenizer import train_tokenizer
from iranker_verl.toy.topics import DIMENSIONS, initialise
from iranker_verl.training import credit
from iranker_verl.training.curriculum import shortened, skill
from iranker_verl.training.step_record import StepRecord
from reward_fns.answers import parse_exclusion

ROOT = Path("runs/reasoning")
SIZES = BaseConfig(hidden=96, layers=2, heads=4, kv_heads=2, feed_forward=192, vocab=700, positions=512)
BASE_STEPS, BASE_ROWS, DECAY, GROW, WATCH, SKILLED = 4000, 32, 200, 50, 100, 0.9
TASKS, BRANCH, LR, TEST = 24, 4, 1e-3, 300
RISE = 0.4  # skill, smoothed, at which episodes begin with one candidate more
MOST = 8  # tokens of a response
CLIP = 1.0  # of the gradient's norm
ALGORITHMS = ("label", "label grpo", "think", "think expected")
FORMED = 1.5  # a label's reward above that of a response that names no candidate, which is -0.5


@dataclass(frozen=True)
class Answer:
    """One response to one prompt, with what is learned from it. ``label_at`` is the index of the label's token; -1 without one."""

    prompt: list[int]
    ids: list[int]
    text: str
    record: StepRecord
    positive: int
    label_at: int


class Policy:
    """A model of the world, and its tokenizer."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.random = random.Random(seed)
        tasks = [two_hop.make_task(self.random, i) for i in range(500)]
        samples = [two_hop.make_sample(self.random, t) for t in tasks for _ in range(4)]
        texts = chain(*([m["content"] for m in s.messages or ()] + [s.answer] for s in samples))
        self.tokenizer: Any = train_tokenizer([*texts, *["user\n", "assistant\n"] * 4000], SIZES.vocab)
        self.model: Any = new_model(self.tokenizer, SIZES)
        initialise(self.model, torch.zeros(len(self.tokenizer), DIMENSIONS))
        copy_values(self.model)
        look_back(self.model, (1, 2))
        induce(self.model)
        self.chat = ChatEncoder(self.tokenizer)
        self.labels = torch.tensor(label_tokens(self.tokenizer, two_hop.CANDIDATES).ids)
        self.end, self.pad = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id

    def learn_base(self) -> None:
        """Teach the questions of the base until it can do each hop, at a constant rate; then ``DECAY`` steps while the rate falls."""
        optimizers, left, step = make_optimizers(self.model, SIZES), DECAY, 0
        while left and step < BASE_STEPS:
            for optimizer, rate in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = rate * min(1.0, (step + 1) / SIZES.warmup, max(0.05, left / DECAY))
            most = min(two_hop.CANDIDATES, 2 + step // GROW)  # short maps first
            tasks = [two_hop.make_task(self.random, 0, self.random.randint(2, most)) for _ in range(BASE_ROWS)]
            rows = encode(self.tokenizer, [two_hop.make_sample(self.random, task) for task in tasks])
            loss = accumulate_gradient(self.model, [rows], self.pad)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            step, left = step + 1, left - (left < DECAY)
            if step % WATCH == 0:
                skills = {f.__name__: self.accuracy(f) for f in (two_hop.look_up, two_hop.find)}
                print(f"base step {step}: loss {loss:.3f}, {skills}", flush=True)
                # one less begins the fall
                left -= left == DECAY and most == two_hop.CANDIDATES and min(skills.values()) >= SKILLED

        if left == DECAY:
            raise UserError(f"after {step} steps the base cannot do each hop; take another seed, or more BASE_STEPS")

    def accuracy(self, question: Callable[[random.Random, RankingTask], Sample], count: int = 100) -> float:
        """Return the share of new questions that are answered greedily right."""
        samples = [question(self.random, two_hop.make_task(self.random, 0)) for _ in range(count)]
        found = self.generate([self.chat.encode(s.messages or ()) for s in samples], greedy=True)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
        return fmean(text.strip() == sample.answer.strip() for text, sample in zip(texts, samples, strict=True))

    @torch.no_grad()
    def generate(self, prompts: Sequence[list[int]], greedy: bool) -> list[list[int]]:
        """Return a response to each prompt, with its end token where it has one."""
        width = max(map(len, prompts))
        ids = torch.tensor([[self.pad] * (width - len(p)) + p for p in prompts])
        mask = (torch.arange(width) >= torch.tensor([width - len(p) for p in prompts])[:, None]).long()
        out = self.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=MOST, do_sample=not greedy)[
            :, width:
        ].tolist()
        return [row[: row.index(self.end) + 1] if self.end in row else row for row in out]

    def log_probs(self, answers: Sequence[Answer]) -> torch.Tensor:
        """Return the log-probs of all tokens at each place of the responses, (answers, MOST, vocabulary)."""
        rows = [a.prompt + a.ids for a in answers]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
        hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        at = torch.tensor(
            [[min(len(a.prompt) - 1 + j, len(a.prompt) + len(a.ids) - 2) for j in range(MOST)] for a in answers]
        )
        return self.model.lm_head(hidden[torch.arange(len(rows))[:, None], at]).log_softmax(-1)

    def episodes(
        self, tasks: Sequence[RankingTask], think: bool, branch: int, greedy: bool
    ) -> tuple[list[float], list[Answer]]:
        """Run an episode of each task; return the reciprocal ranks and all answers. Sampled episodes end where the positive leaves."""
        states = [two_hop.start(task, think) for task in tasks]
        template = two_hop.THINK if think else two_hop.LABEL
        answers: list[Answer] = []
        while live := [i for i, s in enumerate(states) if not (s.done or (s.decided and not greedy))]:
            prompts = [self.chat.encode(template.messages(states[i])) for i in live]
            found = self.generate([p for p in prompts for _ in range(branch)], greedy)
            for place, (i, prompt) in enumerate(zip(live, prompts, strict=True)):
                own = [self._answer(states[i], i, prompt, ids) for ids in found[place * branch : (place + 1) * branch]]
                answers += own
                states[i].step(self.random.choice(own).text)
        return [1 / (s.ranking().index(s.task.candidates[s.task.target].id) + 1) for s in states], answers

    def _answer(self, state: Elimination, session: int, prompt: list[int], ids: list[int]) -> Answer:
        truth, text = state.ground_truth(), self.tokenizer.decode(ids, skip_special_tokens=True)
        named = parse_exclusion(text, truth["candidates"]).index
        reward = -0.5 if named is None else float(named != truth["target"])
        size = len(state.pool)
        record = StepRecord(
            str(session), str(session), tuple(c.id for c in state.pool), reward, 1 - 1 / size, malformed=named is None,
            most_calls=(len(state.task.candidates) - 1) * BRANCH,
        )  # fmt: skip
        labels = [j for j, token in enumerate(ids) if token in self.labels]
        return Answer(prompt, ids, text, record, truth["target"], labels[-1] if labels else -1)


def label_means(log_probs: torch.Tensor, answers: Sequence[Answer], labels: torch.Tensor) -> torch.Tensor:
    """Return the mean reward over the labels that may follow each thought, and -0.5 for all other tokens: (answers,)."""
    at = torch.tensor([max(a.label_at, 0) for a in answers])
    probs = log_probs[torch.arange(len(answers)), at][:, labels].exp()
    valid = torch.arange(len(labels)) < torch.tensor([a.record.pool_size for a in answers])[:, None]
    good = valid & (torch.arange(len(labels)) != torch.tensor([a.positive for a in answers])[:, None])
    return -0.5 + (probs * (good * FORMED + (valid & ~good) * 0.5)).sum(1)


def learn(policy: Policy, optimizer: Any, answers: list[Answer], algorithm: str) -> None:
    """Take one optimiser step on a batch of answers."""
    weights = torch.as_tensor(credit.row_weights([a.record for a in answers]))
    log_probs = policy.log_probs(answers)
    ids = torch.tensor([a.ids + [policy.pad] * (MOST - len(a.ids)) for a in answers])
    mask = torch.arange(MOST) < torch.tensor([len(a.ids) for a in answers])[:, None]
    sampled = log_probs.gather(2, ids[..., None])[..., 0] * mask
    if algorithm == "label":
        means = label_means(log_probs, answers, policy.labels) + 0.5
        objective = means.clamp(min=1e-6).log() + sampled[:, 1]  # and the end
    elif algorithm == "think expected":
        means = label_means(log_probs, answers, policy.labels)
        formed = torch.tensor([a.label_at >= 0 and not a.record.malformed for a in answers])
        paid = torch.where(formed, means.detach(), -0.5).tolist()
        records = [replace(a.record, reward=value) for a, value in zip(answers, paid, strict=True)]
        advantages, metrics = credit.step_advantages(records, prior=1.0)
        thought = torch.arange(MOST) != torch.tensor([a.label_at for a in answers])[:, None]
        objective = torch.as_tensor(advantages) * (sampled * thought).sum(1)
        objective = objective + formed * means / max(metrics["credit/spread"], credit.MIN_SPREAD)
    else:
        advantages, _ = credit.step_advantages([a.record for a in answers], prior=1.0)
        objective = torch.as_tensor(advantages) * sampled.sum(1)
    (-(weights * objective).mean()).backward()
    torch.nn.utils.clip_grad_norm_(policy.model.parameters(), CLIP)
    optimizer.step()
    optimizer.zero_grad()


def evaluate(policy: Policy, think: bool) -> dict[str, float]:
    """Return greedy MRR on tasks that training does not see, and the share of right thoughts."""
    drawn = random.Random("test")
    tasks = [two_hop.make_task(drawn, i) for i in range(TEST)]
    rr, answers = policy.episodes(tasks, think, 1, greedy=True)
    thoughts = [a.text.partition("<think>")[2].partition("</think>")[0] for a in answers]
    right = fmean(two_hop.is_right(tasks[int(a.record.session)], t) for a, t in zip(answers, thoughts, strict=True))
    return {"mrr": round(fmean(rr), 4), "right": round(right, 4)}


def train(seed: int, algorithm: str, tokens: int, lr: float) -> dict[str, Any]:
    """Train once from the base of a seed, and return the line of the run."""
    policy, path = Policy(seed), ROOT / f"base-{seed}.pt"
    if path.exists():
        policy.model.load_state_dict(torch.load(path, weights_only=True))
    else:
        ROOT.mkdir(parents=True, exist_ok=True)
        policy.learn_base()
        torch.save(policy.model.state_dict(), path)
    policy.random.seed(f"{seed}:{algorithm}")
    torch.manual_seed(seed)
    think = algorithm.startswith("think")
    line: dict[str, Any] = {"seed": seed, "algorithm": algorithm, "lr": lr, "before": evaluate(policy, think)}
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=lr, weight_decay=0.0)
    begun, used, steps, size, level = time.monotonic(), 0, 0, 2, 0.0
    while used < tokens:
        tasks = [shortened(two_hop.make_task(policy.random, i), size, str(steps)) for i in range(TASKS)]
        rr, answers = policy.episodes(tasks, think, BRANCH, greedy=False)
        learn(policy, optimizer, answers, algorithm)
        used += sum(len(a.prompt) + len(a.ids) for a in answers)
        steps += 1
        level = 0.8 * level + 0.2 * skill(fmean(rr), size)
        if level > RISE and size < two_hop.CANDIDATES:
            size, level = size + 1, 0.0
        if steps % 20 == 0:
            malformed = fmean(a.record.malformed for a in answers)
            print(
                f"{algorithm} step {steps}: {used} tokens, {size} candidates, episode RR {fmean(rr):.3f}, malformed {malformed:.2f}",
                flush=True,
            )
    return line | {
        "after": evaluate(policy, think),
        "tokens": used,
        "steps": steps,
        "seconds": round(time.monotonic() - begun),
    }


def main() -> None:
    """Run every combination of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--algorithm", nargs="+", default=list(ALGORITHMS), choices=ALGORITHMS)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--lr", type=float, nargs="+", default=[LR])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for seed, algorithm, lr in product(given.seed, given.algorithm, given.lr):
        line = train(seed, algorithm, given.tokens, lr)
        print(json.dumps(line), flush=True)
        with (ROOT / "results.jsonl").open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
