r"""The exclusion reward of IRanker's public code, with its constants, for runs that reproduce it (arXiv 2506.21638).

The paper's words are :mod:`reward_fns.exclusion`'s ``published``. The code differs, and each difference is a setting here::

    score = value + format_constant - tag_weight * (tags that do not occur exactly once)

``value``            1 for a candidate but the positive, 0 for the positive, -0.5 for what is no candidate, -1 without an answer.
                     A candidate is named by its exact text, the first line of the last ``<answer>``.
``format_constant``  -1: the code matches the whole layout from the beginning of prompt and response, where it never is.
``tag_weight``       0.25 for each of four tags with the white space around them: ``<think>`` and white space; ``</think>`` between
                     white space and a line feed; ``<answer>`` after a line feed; ``</answer>`` after white space. A right exclusion
                     earns 0, -0.25, … -1 by white space alone.
``read_prompt``      True: answer and tags are looked for in the prompt as well, which holds both. It is then read from
                     ``extra_info["prompt"]``, the prompt's text, which this project's agent loop hands over.

>>> truth = {"candidates": ["Heat", "Alien", "Up"], "target": 0}
>>> asked = {"prompt": "Show your work in <think> </think> tags and the answer in <answer> </answer> tags. <think>"}
>>> [compute_score("", f"Old.{end}", truth, asked)["score"] for end in ("\n</think>\n<answer>\nUp</answer>", "</think><answer>Up</answer>")]
[0.0, -0.5]
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

# as in exclusion.py
if __package__ != "reward_fns":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
try:
    from reward_fns.exclusion import relevance_of
    from reward_fns.shaping import VERL_PASSES, in_batches
finally:
    if __package__ != "reward_fns":
        del sys.path[0]

NOT_A_CANDIDATE = -0.5
NO_ANSWER = -1.0
_TAGS = tuple(map(re.compile, (r"<think>\s", r"\s</think>\n", r"\n<answer>\s", r"\s</answer>")))


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: dict[str, Any],
    extra_info: dict[str, Any] | None = None,
    *,
    format_constant: float = -1.0,
    tag_weight: float = 0.25,
    read_prompt: bool = True,
    **settings: Any,
) -> dict[str, float]:
    """Return the reward of one exclusion, ``score``, and its parts; the signature is verl's.

    ``ground_truth`` is that of :func:`reward_fns.exclusion.compute_score`. Raise ValueError for one of another shape, for unknown
    settings, and with ``read_prompt`` where ``extra_info`` has no ``prompt``.
    """
    if unknown := sorted(set(settings) - VERL_PASSES):
        raise ValueError(f"unknown reward_kwargs {unknown[0]!r}; known are format_constant, tag_weight and read_prompt")
    texts, relevance = relevance_of(ground_truth)
    prompt = (extra_info or {}).get("prompt") if read_prompt else ""
    if not isinstance(prompt, str):
        raise ValueError(
            'the public code reads its prompt too: it is expected in extra_info["prompt"]; set reward_kwargs.read_prompt=false '
            "to read the response alone"
        )
    text = prompt + solution_str
    answer = _answer(text)
    index = texts.index(line) if answer is not None and (line := answer.split("\n")[0]) in texts else None
    best = max(relevance)
    unread = NO_ANSWER if answer is None else NOT_A_CANDIDATE
    value = unread if index is None else float(relevance[index] < best)
    untidy = sum(len(tag.findall(text)) != 1 for tag in _TAGS)
    return {
        "score": value + format_constant - tag_weight * untidy,
        "expected": sum(one < best for one in relevance) / len(texts) + format_constant,
        "tags": -tag_weight * untidy,
        "malformed": float(index is None),
        "no_answer": float(answer is None),
        "not_a_candidate": float(answer is not None and index is None),
        "lost_positive": float(index is not None and relevance[index] == best),
        "pool_size": float(len(texts)),
    }


compute_score_batch = in_batches(compute_score)


def _answer(text: str) -> str | None:
    """Return the last of several ``<answer>`` contents; of one the content between line feeds, else the stripped one."""
    found, at = [], 0
    while (start := text.find("<answer>", at)) >= 0 and (end := text.find("</answer>", start)) >= 0:
        found.append(text[start + len("<answer>") : end].strip())
        at = end + len("</answer>")
    if len(found) == 1 and (start := text.find("<answer>\n")) >= 0:
        start += len("<answer>\n")
        if (end := text.find("\n</answer>", start)) >= 0:
            return text[start:end]
    return found[-1] if found else None
