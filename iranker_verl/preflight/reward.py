"""The reward function of a recipe, loaded and tried. It is code, and runs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import DictConfig

from iranker_verl.audit.policies import Task, dialects
from iranker_verl.audit.scorer import Scorer
from iranker_verl.errors import UserError
from iranker_verl.ranking.templates import load


def check_reward(config: DictConfig) -> None:
    """Raise UserError where the reward function cannot be loaded, or does not pay for a perfect answer."""
    from verl.trainer.ppo.reward import get_custom_reward_fn

    try:
        score = get_custom_reward_fn(config)
    except (ImportError, OSError, RuntimeError, AttributeError, AssertionError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    if score is None:
        raise UserError("reward.custom_reward_function.path is not set; pkg://reward_fns.exclusion is the usual one")
    _check_pay(score, load(config.iranker.template).kind == "direct")


def _check_pay(score: Callable[..., Any], ranking: bool) -> None:
    """Let the reward function score a perfect answer and the worst one, in every form that an answer may have.

    UserError where no form of the perfect one earns more: a reward of whole rankings for exclusions, say, teaches to exclude the
    best. A function that needs more than an example's fields cannot be tried, and passes.
    """
    texts = ["Alder", "Birch", "Cedar"]
    values = {"target": 0, "relevance": [1.0, 0.5, 0.0], "effect": [1.0, 0.5, 0.0], "cost": [0.0, 0.0, 0.0]}
    task, scorer = Task("rec-movie", "", {"candidates": texts, **values}, {}), Scorer(score, {}, sees_prompt=False)

    def earned(answer: str) -> float:
        found = scorer.call(task, answer)
        return float(found["score"] if isinstance(found, dict) else found)

    try:
        pays = any(
            earned(form.answer(task, form.right(task))) > earned(form.answer(task, form.wrong(task)))
            for form in dialects(ranking)
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.custom_reward_function: {' '.join(str(error).split())}") from error
    except (Exception, SystemExit):  # whatever a stranger's function misses in an example
        return
    if not pays:
        what = "ranking all candidates" if ranking else "excluding the worst candidate"
        raise UserError(
            f"reward.custom_reward_function pays {what} perfectly no more than at worst; is it of the recipe's kind? "
            f"pkg://reward_fns.{'direct' if ranking else 'exclusion'} is the usual one; `iranker audit-reward` looks closer"
        )
