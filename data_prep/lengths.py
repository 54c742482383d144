"""No prompt may be longer than the model reads: verl would cut it off at the left, history and system prompt first."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

from iranker_verl.errors import UserError
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Message, Template

CountTokens = Callable[[list[Message]], int]
_WAY_OUT = {
    "recommendation": "prepare with a smaller history or fewer candidates",
    "routing": "prepare with a smaller max_chars or shorter descriptions",
    "passage": "prepare with a smaller max_chars",
}


def check_lengths(tasks: Iterable[RankingTask], template: Template, count_tokens: CountTokens, limit: int) -> int:
    """Return the tokens of the longest first prompt (an episode's longest). Raise UserError where that is above ``limit``.

    ``count_tokens`` takes the chat messages and returns their length after the model's chat template.
    """
    return _check(((t.id, t.scenario, template.messages(template.start(t))) for t in tasks), count_tokens, limit)


def refuse_long_rows(rows: pa.Table, count_tokens: CountTokens, limit: int) -> None:
    """Do the same for rows in the schema of prepared data."""
    infos, prompts = rows["extra_info"].to_pylist(), rows["prompt"].to_pylist()
    _check(((i["task_id"], i["scenario"], p) for i, p in zip(infos, prompts, strict=True)), count_tokens, limit)


def _check(prompts: Iterable[tuple[str, str, list[Message]]], count_tokens: CountTokens, limit: int) -> int:
    longest, over, worst = 0, 0, ("", "")
    for id, scenario, messages in prompts:
        length = count_tokens(messages)
        over += length > limit
        if length > longest:
            longest, worst = length, (id, scenario)
    if over:
        raise UserError(
            f"the prompt of task {worst[0]!r} has {longest} tokens, the limit is {limit} "
            f"({over} prompts are too long); {_WAY_OUT[worst[1]]}, or allow longer prompts"
        )
    return longest
