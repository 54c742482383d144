"""Which token of a tokenizer says a label."""

from __future__ import annotations

from typing import Any

from iranker_verl.errors import UserError
from reward_fns.answers import label


def label_tokens(tokenizer: Any, count: int) -> list[int]:
    """The tokens of the labels ``[A]``, ``[B]``, … of ``count`` candidates. UserError where a label is not one token."""
    found = []
    for place in range(count):
        ids = tokenizer(f"[{label(place)}]", add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise UserError(
                f"the tokenizer has {len(ids)} tokens for the label [{label(place)}]; it has to be one. "
                "With such a tokenizer take algorithm.adv_estimator=exclusion_grpo"
            )
        found.append(int(ids[0]))
    return found
