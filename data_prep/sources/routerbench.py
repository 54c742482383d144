"""RouterBench (https://huggingface.co/datasets/withmartian/routerbench), converted to Parquet or CSV, wide or long.

The wide form (``routerbench_0shot``, ``routerbench_5shot``) has a row a query: ``sample_id, prompt, eval_name``, and for
each LLM its score in a column of its name and its dollars in ``NAME|total_cost``. The long form (``routerbench_raw``) has
a row a query and LLM: ``sample_id, prompt, eval_name, model_name, performance, cost``. Other columns, the responses above
all, are not read; neither is ``oracle_model_to_route_to``, which is the best LLM without a preference.

A prompt is the text of a Python list of turns, ``"['…', '…']"``: the turns, each once, are joined by a blank line. A text
that is no such list is taken as it is. Costs are raw dollars, see :mod:`data_prep.scenarios.routing` for the scale; ``eval_name`` is
the task. Descriptions of the LLMs may be in ``llm_descriptions.json``, beside the file or in the folder that is prepared.

The files are published as pickles. A pickle is a program and is never opened here: it is refused, with the command that
converts it. Rows with an empty prompt and, in the wide form, repeated queries are dropped and counted.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.readers.filenames import stem_of, suffix_of
from data_prep.readers.lines import check_columns, column_key, optional_number, table_columns, table_header
from data_prep.readers.parquet import parquet_batches, parquet_file
from data_prep.readers.sniff import RawFile
from data_prep.readers.text import readable
from data_prep.scenarios.descriptions import DESCRIPTIONS, Described
from data_prep.scenarios.routing import ROUTERS, Query, Results, router_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

COLUMNS = ("sample_id", "prompt", "eval_name")
LONG = ("model_name", "performance", "cost")
_COST = "|total_cost"
_CONVERTED, _PICKLES = (".parquet", ".csv"), (".pkl", ".pickle")
_HINT = f"RouterBench has {','.join(COLUMNS)} with NAME and NAME{_COST} for each LLM, or with {','.join(LONG)}"


def find_routerbench(files: Sequence[RawFile], raw: Path) -> Iterator[Source]:
    """Yield Parquet and CSV with RouterBench's columns, or named ``routerbench…``, and its pickles without a converted file beside them."""
    converted = {stem_of(file.path) for file in files if file.suffix in _CONVERTED}
    for file in files:
        path, named = file.path, file.name.lower().startswith("routerbench")
        if file.suffix in _CONVERTED and (named or _has_columns(file)):
            reader = partial(read_routerbench, path)
            yield router_source("RouterBench", [path], DESCRIPTIONS, reader, files, raw)
        if file.suffix in _PICKLES and named and stem_of(path) not in converted:
            yield Source("RouterBench", ROUTERS, (path,), refused=_why_no_pickle(path))


def _has_columns(file: RawFile) -> bool:
    return file.has(*COLUMNS) and (file.has(*LONG[:2]) or any(name.endswith(_COST) for name in file.columns))


def _why_no_pickle(path: Path) -> str:
    code = f"import pandas as pd; pd.read_pickle('{path.name}').to_parquet('{path.stem}.parquet')"
    return (
        f"{path}: a pickle can run any program, so it is not opened; convert it where it can do no harm, say in a "
        f'container without network that sees this one folder: python -c "{code}"'
    )


def read_routerbench(path: Path, described: Mapping[str, Described] | None = None) -> Results:
    """Return the rows of the file in the neutral form; its costs need no prices. Raise UserError with row and column."""
    results = Results()
    names = _names(path)
    check_columns(COLUMNS, names, path, _HINT)
    whole = "model_name" not in names
    llms = [name.removesuffix(_COST) for name in names if name.endswith(_COST)]
    outcomes = [(llm, llm, llm + _COST) for llm in llms] if whole else [("", *LONG[1:])]
    check_columns([effect for _, effect, _ in outcomes] or [f"NAME{_COST}"], names, path, _HINT)
    wanted = {name: own for name, own in names.items() if name in (*COLUMNS, *LONG, *llms) or name.endswith(_COST)}
    for at, row in _rows(path, wanted, results.dropped):
        text = prompt_text(row["prompt"])
        query = Query(text, str(row["sample_id"]), str(row["eval_name"]))
        if not text:
            results.dropped["rows: empty prompt"] += 1
        elif whole and query in results.queries:
            results.dropped["rows: repeated query"] += 1
        else:
            for llm, effect, cost in outcomes:
                llm = llm or readable(row["model_name"] or "")
                if not llm:
                    raise UserError(f"{path} row {at}: model_name is empty; correct or remove the row")
                score = optional_number(row[effect], path, at, effect)
                results.add(query, llm, score, cost_raw=optional_number(row.get(cost), path, at, cost, least=0))
    return results


def _names(path: Path) -> dict[str, str]:
    """Return ``{name: as it is written}`` of the columns; LLMs are called as they are written."""
    if suffix_of(path) == ".parquet":
        with parquet_file(path) as file:
            written = list(file.schema_arrow.names)
    else:
        written = table_header(path, ",")[1]
    known = {column_key(name): name for name in (*COLUMNS, *LONG)}
    return {known.get(column_key(name), name): name for name in written}


def _rows(path: Path, names: Mapping[str, str], dropped: Counter[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    if suffix_of(path) == ".parquet":
        for first, batch in parquet_batches(path, list(names.values())):
            columns = {name: batch[own].to_pylist() for name, own in names.items()}
            for place, cells in enumerate(zip(*columns.values(), strict=True)):
                yield first + place, dict(zip(columns, cells, strict=True))
    else:
        for row, values in table_columns(path, ",", [(own,) for own in names.values()], len(names), dropped):
            yield row, dict(zip(names, values, strict=True))


def prompt_text(given: object) -> str:
    """Return the prompt's text; "" where there is none."""
    turns = given
    if isinstance(given, str) and given.strip().startswith("["):
        with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            turns = ast.literal_eval(given.strip())
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        turns = [given] if isinstance(given, str) else []
    return "\n\n".join(dict.fromkeys(filter(None, map(readable, turns))))
