"""R1-Rec: a language model trained to recommend, which gives the whole ranking in one answer.

It is trained as Rec-R1 (Lin et al. 2025, arXiv 2503.24289) with nDCG as the reward; ``recipes/r1_rec_3b`` trains one. It is
evaluated as every model of this project, at temperature 0, with the template that its folder names.
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

MAX_NEW_TOKENS = 1024  # as in the recipe: reasoning, then all labels


class R1Rec:
    """A language model that ranks directly. Recommendation.

    ``fit`` and ``template`` raise Unavailable without a model, and UserError for a folder of a model that was not trained
    here, or was trained to exclude.
    """

    name = "r1-rec"

    def __init__(self, context: Context) -> None:
        self._context = context
        self._episodes: list[Episode | None] = []

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Check the model, which is trained already."""
        self._model()

    def rank(self, tasks: Sequence[RankingTask]) -> list[Ranking | None]:
        """Evaluate the model on the recommendation tasks."""
        model, template = self._model()
        recommendation = [task for task in tasks if task.scenario == "recommendation"]
        self._episodes = [None] * len(tasks)
        if not recommendation:
            return [None] * len(tasks)
        result = evaluate_model(
            ModelSystem(self.name, model, template, max_new_tokens=MAX_NEW_TOKENS),
            recommendation,
            seed=self._context.seed,
            log=self._context.log,
        )
        records = iter(result.records)
        found = [next(records) if task.scenario == "recommendation" else None for task in tasks]
        self._episodes = [record.episode if record else None for record in found]
        return [list(record.ranking) if record else None for record in found]

    def episodes(self) -> list[Episode | None]:
        """Return the episodes of the last ``rank``."""
        return self._episodes

    def template(self) -> Template:
        """Return the template that the model was trained with."""
        return self._model()[1]

    def _model(self) -> tuple[Path, Template]:
        """Return the model's folder, and the template that its ``iranker.json`` names."""
        named = self._context.models.get(self.name)
        if not named:
            raise Unavailable("no model: give --models r1-rec=FOLDER (train one with recipes/r1_rec_3b)")
        stamp = trained_with(Path(named))
        if stamp is None:
            raise UserError(
                f"{Path(named) / STAMP}: no such file; give the folder `model` of a run of recipes/r1_rec_3b, which holds it"
            )
        template = load(stamp.template_id)
        if template.kind != "direct":
            raise UserError(
                f"{named}: trained with the template {template.id}, which excludes; r1-rec ranks all at once: give a model "
                "of recipes/r1_rec_3b"
            )
        return Path(named), template
