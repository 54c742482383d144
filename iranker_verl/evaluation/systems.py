"""What is evaluated: language models and baselines, each with a name and a role in the results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from iranker_verl.errors import UserError
from iranker_verl.evaluation.prices import Price
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.episode import EpisodeOptions
from iranker_verl.ranking.elimination import Share
from iranker_verl.ranking.templates import Template


class Role(StrEnum):
    """What a system is in the results; at most one system has each of the first three."""

    ZERO_SHOT = "zero-shot"
    """Trained models, each tested on a scenario that it was not trained on."""
    AFTER = "after"
    """The model after training."""
    BEFORE = "before"
    """The same model before training."""
    MODEL = "model"
    """Any other language model, or another way to ask one."""
    BASELINE = "baseline"
    """What the models have to beat."""


SINGLE = (Role.ZERO_SHOT, Role.AFTER, Role.BEFORE)
Roles = Mapping[str, Role]  # by system


def role_by_name(system: str, *, baseline: bool = False) -> Role:
    """Return the role of a system for which none is named: that of its own name, or baseline, or model."""
    if system in SINGLE:
        return Role(system)
    return Role.BASELINE if baseline else Role.MODEL


def main_system(roles: Roles) -> str | None:
    """Return the system that a report is about, against which the others are tested; None among baselines alone."""
    return next((s for role in (Role.ZERO_SHOT, Role.AFTER, Role.MODEL) for s in roles if roles[s] == role), None)


def with_role(roles: Roles, role: Role) -> str | None:
    """Return the system of this role; None where there is none."""
    return next((system for system, own in roles.items() if own == role), None)


def check_roles(roles: Roles) -> None:
    """Raise UserError where two systems have a role that only one can have."""
    for role in SINGLE:
        if len(same := [system for system, own in roles.items() if own == role]) > 1:
            raise UserError(
                f"{same[0]} and {same[1]} both have the role {role!s}; give one of them --role model, or another folder"
            )


@dataclass(frozen=True)
class ModelSystem:
    """A language model to evaluate, and how it is asked.

    Args:
        name: of its files and in the results.
        model: a model folder, which is run with vLLM, or a model of a server.
        template: the prompt template, which also decides the way to a ranking.
        role: what it is in the results.
        max_new_tokens: the most tokens of an answer.
        temperature: 0 is greedy.
        orders: in how many orders of its candidates each task is ranked.
        concurrency: the engine's batch, or the requests that a server has at once.
        shards: Ray workers with an engine each; one of our own for 1.
        price: what tokens cost, for ``dollars_per_task``.
        per_call: candidates that a call excludes: a number, ``half`` or ``all``.
        constrained: read answers from the labels' log-probs; always so where ``per_call`` is not 1.
        scenario: the only one that it ranks; None for all.
    """

    name: str
    model: Path | Endpoint
    template: Template
    role: Role = Role.MODEL
    max_new_tokens: int = 16
    temperature: float = 0.0
    orders: int = 1
    concurrency: int = 64
    shards: int = 1
    price: Price | None = None
    per_call: int | Share = 1
    constrained: bool = False
    scenario: str | None = None

    @property
    def reads_log_probs(self) -> bool:
        """Return whether answers are constrained to labels (:func:`iranker_verl.inference.episode.check_constrained`)."""
        return self.constrained or self.per_call != 1

    def episode_options(self, seed: int) -> EpisodeOptions:
        """Return how the model is asked in an episode."""
        return EpisodeOptions(
            self.max_new_tokens, self.temperature, seed, per_call=self.per_call, constrained=self.reads_log_probs
        )
