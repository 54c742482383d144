"""R1-Rec: a language model trained to recommend, which names the whole ranking in one answer.

What it learned from, and how, is Rec-R1's (Lin et al. 2025, arXiv 2503.24289): the recommender's own measure, nDCG, as the
reward; ``recipes/r1_rec_3b`` trains one. It is asked here as every model of this project is, at temperature 0, with the
template that its folder says it was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.base import Context, Ranking, Unavailable
from iranker_verl.evaluation.model_runs import evaluate_model
from iranker_verl.evaluation.systems import ModelSystem
from iranker_verl.inference.episode import Episode
from iranker_verl.inference.models import STAMP, trained_with
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Template, load

MAX_NEW_TOKENS = 1024  # as in the recipe: thoughts, and then all labels


class R1Rec:
    """Recommendation only. Unavailable without a model; UserError for a folder that is none of a model trained here, or
    of one that was trained to exclude."""

    name = "r1-rec"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._played: list[Episode | None] = []

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Nothing to learn: the model has learned. Looks whether it is there, and what it is."""
        self._model()

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        model, template = self._model()
        own = [task for task in tasks if task.scenario == "recommendation"]
        self._played = [None] * len(tasks)
        if not own:
            return [None] * len(tasks)
        played = evaluate_model(
            ModelSystem(self.name, model, template, max_new_tokens=MAX_NEW_TOKENS),
            own,
            seed=self._context.seed,
            log=self._context.say,
        )
        records = iter(played.records)
        found = [next(records) if task.scenario == "recommendation" else None for task in tasks]
        self._played = [record.episode if record else None for record in found]
        return [list(record.ranking) if record else None for record in found]

    def episodes(self) -> list[Episode | None]:
        return self._played

    def template(self) -> Template:
        return self._model()[1]

    def _model(self) -> tuple[Path, Template]:
        """The model's folder, and the template that its ``iranker.json`` names."""
        named = self._context.models.get(self.name)
        if not named:
            raise Unavailable("no model: give --models r1-rec=FOLDER (train one with recipes/r1_rec_3b)")
        own = trained_with(Path(named))
        if own is None:
            raise UserError(
                f"{Path(named) / STAMP}: no such file; give the folder `model` of a run of recipes/r1_rec_3b, which holds it"
            )
        template = load(own.template_id)
        if template.kind != "direct":
            raise UserError(
                f"{named}: trained with the template {template.id}, which excludes; r1-rec ranks all at once: give a model "
                "of recipes/r1_rec_3b"
            )
        return Path(named), template
