"""No prompt may be longer than the model reads: verl would cut it off at the left, history and system prompt first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from iranker_verl.errors import UserError
from iranker_verl.ranking import Elimination, RankingTask
from iranker_verl.ranking.templates import Message, Template

_WAY_OUT = {
    "recommendation": "prepare with a smaller history or fewer candidates",
    "routing": "prepare with a smaller max_chars or shorter descriptions",
    "passage": "prepare with a smaller max_chars",
}


def check_lengths(
    tasks: Iterable[RankingTask], template: Template, count_tokens: Callable[[list[Message]], int], limit: int
) -> int:
    """The tokens of the longest first prompt (an episode's longest); UserError where that is above ``limit``.

    ``count_tokens`` takes the chat messages and returns their length after the model's chat template.
    """
    longest, over, worst = 0, 0, None
    for task in tasks:
        length = count_tokens(template.messages(Elimination(task)))
        over += length > limit
        if length > longest:
            longest, worst = length, task
    if over and worst is not None:
        raise UserError(
            f"{worst.dataset}: the prompt of task {worst.id!r} has {longest} tokens, the limit is {limit} "
            f"({over} tasks are too long); {_WAY_OUT[worst.scenario]}, or allow longer prompts"
        )
    return longest
