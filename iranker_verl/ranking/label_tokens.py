"""Which token of a tokenizer tells one label from another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from iranker_verl.errors import UserError
from reward_fns.answers import label


@dataclass(frozen=True)
class LabelTokens:
    """The tokens that answers ``[A]``, ``[B]``, … differ in.

    Attributes:
        prefix: Ids that the answer begins with whichever label it names. They are put at the end of the prompt, so that the
            first token of the answer is the label's own.
        ids: The label's own token, for each label in order.
    """

    prefix: tuple[int, ...]
    ids: tuple[int, ...]


def label_tokens(tokenizer: Any, count: int) -> LabelTokens:
    """Return the tokens of the first ``count`` labels.

    A tokenizer that was trained here has one token for all of ``[A]``, and the prefix is empty. Qwen's, Llama's and other real
    ones have several; there the prefix is ``[``, and a bare letter follows. Raise UserError where a bare letter is more than one
    token, as from the 27th label on.
    """

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    whole = [ids(f"[{label(index)}]") for index in range(count)]
    if all(len(found) == 1 for found in whole):
        return LabelTokens((), tuple(found[0] for found in whole))
    letters = [ids(label(index)) for index in range(count)]
    for index, found in enumerate(letters):
        if len(found) != 1 or found in letters[:index]:
            raise UserError(
                f"the tokenizer has no single token of its own for the label {label(index)} (it has {len(found)}); show fewer "
                "candidates, or take algorithm.adv_estimator=exclusion_grpo, which needs none"
            )
    return LabelTokens(ids("["), tuple(found[0] for found in letters))
