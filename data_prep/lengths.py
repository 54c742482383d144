"""No prompt may be longer than the model reads: verl would cut it off at the left, history and system prompt first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data_prep.schema import open_rows
from data_prep.work import map_in_processes
from iranker_verl.errors import UserError
from iranker_verl.files import CannotWriteError, marked, read_json, write_json
from iranker_verl.provenance import as_read_back, file_digest
from iranker_verl.ranking.templates import Message, Template, check_hash

CountTokens = Callable[[list[Message]], int]
KEPT = "longest_prompt.json"  # beside the first of the files that were counted
_WAY_OUT = {
    "recommendation": "prepare with a smaller history or fewer candidates",
    "routing": "prepare with a smaller max_chars or shorter descriptions",
    "passage": "prepare with a smaller max_chars",
}


class _Longest(NamedTuple):
    """The longest of several prompts, and how many are above the limit."""

    tokens: int = 0
    task: str = ""
    scenario: str = ""
    over: int = 0


def check_files(
    files: Sequence[Path],
    template: Template,
    count_tokens: CountTokens,
    limit: int,
    counter: Mapping[str, Any] | None = None,
) -> int:
    """Return the tokens of the longest prompt in prepared ``files``, which all were made with ``template``.

    Row groups are read one at a time, by a process for each CPU where there are several. ``count_tokens`` takes the chat
    messages and returns their length after the model's chat template; it can be pickled. Raise UserError where a prompt is
    longer than ``limit``, and where rows were made with another template.

    With ``counter``, all that ``count_tokens`` depends on as JSON, the result is kept in the file :data:`KEPT` and is not counted
    again as long as that, the template and every byte of ``files`` stay the same.
    """
    if counter is None:
        return _count(files, template, count_tokens, limit)
    kept = files[0].with_name(KEPT)
    made_of = as_read_back(
        {"counter": counter, "template": template.hash, "files": [file_digest(file) for file in files]}
    )
    known = _kept(kept, made_of)
    if known is None or known > limit:
        known = _count(files, template, count_tokens, limit)
        with suppress(CannotWriteError):  # it is counted again, then
            write_json(kept, marked({"made_of": made_of, "tokens": known}))
    return known


def _kept(path: Path, made_of: dict[str, Any]) -> int | None:
    """Return the tokens that were kept of the same things; None where there are none."""
    try:
        content = read_json(path)
        return int(content["tokens"]) if content["made_of"] == made_of else None
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def _count(files: Sequence[Path], template: Template, count_tokens: CountTokens, limit: int) -> int:
    pieces = [(file, group) for file in files for group in range(open_rows(file).num_row_groups)]
    measure = partial(_longest_of_group, template=template, count_tokens=count_tokens, limit=limit)
    return _checked(map_in_processes(measure, pieces), limit)


def refuse_long_rows(rows: pa.Table, count_tokens: CountTokens, limit: int) -> None:
    """Do the same for rows in the schema of prepared data."""
    infos = rows["extra_info"]
    names = zip(*(pc.struct_field(infos, name).to_pylist() for name in ("task_id", "scenario")), strict=True)
    _checked([_longest(names, rows["prompt"].to_pylist(), count_tokens, limit)], limit)


def _longest_of_group(piece: tuple[Path, int], template: Template, count_tokens: CountTokens, limit: int) -> _Longest:
    path, group = piece
    names = ("task_id", "scenario", "template_id", "template_hash")
    rows = open_rows(path).read_row_group(group, columns=["prompt", *(f"extra_info.{name}" for name in names)])
    infos = rows["extra_info"].to_pylist()
    for id, hash in {(info["template_id"], info["template_hash"]) for info in infos}:
        check_hash(template, id, hash, str(path))
    named = ((info["task_id"], info["scenario"]) for info in infos)
    return _longest(named, rows["prompt"].to_pylist(), count_tokens, limit)


def _longest(
    names: Iterable[tuple[str, str]], prompts: Iterable[list[Message]], count_tokens: CountTokens, limit: int
) -> _Longest:
    found = _Longest()
    for (task, scenario), messages in zip(names, prompts, strict=True):
        tokens, over = count_tokens(messages), found.over
        over += tokens > limit
        found = _Longest(tokens, task, scenario, over) if tokens > found.tokens else found._replace(over=over)
    return found


def _checked(found: Iterable[_Longest], limit: int) -> int:
    longest, over = _Longest(), 0
    for one in found:
        over += one.over
        longest = max(longest, one, key=lambda which: which.tokens)
    if over:
        raise UserError(
            f"the prompt of task {longest.task!r} has {longest.tokens} tokens, the limit is {limit} "
            f"({over} prompts are too long); {_WAY_OUT[longest.scenario]}, or allow longer prompts"
        )
    return longest.tokens
