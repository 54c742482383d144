"""R1-Rec: a language model trained to recommend, which gives the whole ranking in one answer.

It is trained as Rec-R1 (Lin et al. 2025, arXiv 2503.24289) with nDCG as the reward; ``recipes/r1_rec_3b`` trains one. It is
evaluated as every model of this project, at temperature 0, with the template that its folder names.
"""

from __future__ import annotations

from pathlib import Path

from iranker_verl.errors import UserError
from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.evaluation.systems import ModelSystem, Role
from iranker_verl.inference.models import STAMP, trained_with
from iranker_verl.ranking.templates import load

MAX_NEW_TOKENS = 1024  # as in the recipe: reasoning, then all labels


class R1Rec:
    """A language model that ranks directly. Recommendation."""

    name = "r1-rec"

    def __init__(self, context: Context) -> None:
        self._context = context

    def system(self) -> ModelSystem:
        """Return the model, with the template that its ``iranker.json`` names.

        Raise Unavailable without a model, and UserError for a folder of one that was not trained here, or was trained to exclude.
        """
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
        return ModelSystem(
            self.name, Path(named), template, Role.BASELINE, max_new_tokens=MAX_NEW_TOKENS, scenario="recommendation"
        )
