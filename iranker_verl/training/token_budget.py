"""``iranker.token_budget``: end training by the tokens that the LLM has read and written, to compare algorithms at equal cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def last_step(budget: int | None, lines: Sequence[Mapping[str, Any]], planned: int) -> int:
    """Return the last RL step: the next one where another step like the last would pass ``budget``, otherwise ``planned``.

    ``lines`` are those of ``metrics.jsonl`` so far, with ``step`` and ``tokens/step``. The decision is made one step ahead, as
    verl saves at its last step only if it knows, before the step, that it is the last.

    >>> lines = [{"step": 1, "tokens/step": 40}, {"step": 2, "tokens/step": 30}]
    >>> last_step(100, lines, planned=20), last_step(101, lines, planned=20), last_step(None, lines, planned=20)
    (3, 20, 20)
    """
    if budget is None or not lines:
        return planned
    spent = sum(line["tokens/step"] for line in lines)
    if spent + lines[-1]["tokens/step"] < budget:
        return planned
    return min(planned, lines[-1]["step"] + 1)
