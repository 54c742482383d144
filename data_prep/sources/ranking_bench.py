"""The published benchmark, ``ulab-ai/Ranking-bench`` on the Hugging Face hub: all nine tasks, made by the authors.

What is known of it comes from the public code that made it and that reads it (github.com/ulab-uiuc/R1-Ranker):

* Configs ``direct`` (whole tasks) and ``iterative`` (elimination states), each with the splits train and test and the
  columns ``problem``, ``gt``, ``candidates``, ``task_name`` (examples/data_preprocess/{direct,iterative}_data_generation.py).
* ``task_name`` is Rec-Movie, …, Router-Performance, …, Passage-9 (…/dataset/combine_direct_data.py).
* ``candidates`` are titles, LLM names or passages. ``gt`` is one of them; for passages it is a name, ``passage 3``, that
  the listing in ``problem`` gives them (…/dataset/data_*/process_*.py; eval/eval_passage.py reads it there).
* ``problem`` is the whole prompt; :mod:`data_prep.scenarios.problems` takes it apart.

Candidates may also be a string that holds a list, and passages may be given as ``passage 3`` or ``passage 3: text``. Rows
stay what they are: an iterative row is a task with its own pool, equal rows are not merged, and neither ``max_chars`` nor
``passages`` applies. Parquet, Arrow, CSV, JSON arrays and JSON lines are read. Which config and split a file is, its name
or a folder's says, or the column ``split``. Where both configs are there ``direct`` is taken, since ``--rows states`` makes
states of whole tasks; give the path of the other one to have that.

Policy. Dropped and counted: a row whose ``gt`` is none of the candidates or several of them (by what is shown), with a
candidate that is in the history, or with an empty candidate or context. Refused, by file and row: an unknown task name, candidates that are no list of two texts or more, a ``problem``
or ``gt`` that is no text, a problem of another form, a split that is neither train nor test, a file that is cut off (JSON
lines, CSV and Arrow cut off between two rows look whole).
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.options import Options
from data_prep.readers import opened
from data_prep.readers.documents import json_records
from data_prep.readers.filenames import home, sides
from data_prep.readers.lines import plain_text, table_columns
from data_prep.readers.parquet import longest_text, parquet_batches, parquet_file
from data_prep.readers.sniff import ARROW, PARQUET, TABLE, NotRead, RawFile, arrow_stream
from data_prep.readers.text import query_key, shown
from data_prep.scenarios import problems
from data_prep.scenarios.problems import Problem
from data_prep.tasks import Draft, Dropped, Source, Unit
from iranker_verl.errors import UserError, first_line
from iranker_verl.ranking import DATASETS, Candidate, RankingTask

COLUMNS = ("problem", "gt", "candidates", "task_name")
CONFIGS = ("direct", "iterative")
_SUFFIXES = (".parquet", ".arrow", ".csv", ".json", ".jsonl")
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<config>direct|iterative))?/?")


def fetch_from_hub(name: str, cache: Path) -> Path:
    """Fetch ``owner/repository[@revision][/config]`` from the hub into ``cache``; the folder that it is in.

    What is there already is not fetched again. UserError where huggingface_hub is not installed, for a name of another
    form, and where the hub or the repository cannot be reached.
    """
    found = _HUB_NAME.fullmatch(name)
    if found is None:
        raise UserError(f"hf://datasets/{name}: not a dataset's name; write hf://datasets/ulab-ai/Ranking-bench")
    config = found["config"] or ""
    target = cache / found["repo"].replace("/", "--") / "-".join(filter(None, (found["revision"] or "main", config)))
    by_hand = f"or download {found['repo']} where you are online and give the folder"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise UserError(f"hf://datasets/{name}: huggingface_hub is not installed; install it, {by_hand}") from error
    try:
        snapshot_download(
            found["repo"],
            repo_type="dataset",
            revision=found["revision"],
            local_dir=target,
            allow_patterns=[f"*{config}*{suffix}" for suffix in _SUFFIXES],
        )
    except Exception as error:  # any error of the network, the hub or its client
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise UserError(f"hf://datasets/{name}: cannot be fetched ({reason}); try again, {by_hand}") from error
    return target


def find_ranking_bench(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield a source for each copy of the benchmark. Raise UserError for a file of it that is not whole."""
    found: dict[Path, dict[str, list[RawFile]]] = {}
    for file in files:
        if file.suffix in _SUFFIXES and file.has(*COLUMNS):
            found.setdefault(home(file.path, raw, CONFIGS), {}).setdefault(_config(file.path, raw), []).append(file)
    for folder, by_config in found.items():
        config = next(config for config in (*CONFIGS, "") if config in by_config)
        own = {file.path: file for file in by_config[config]}
        used = [(own[path], path.relative_to(folder).as_posix(), side) for path, side in sides(own, raw)]
        paths = tuple(file.path for file, *_ in used)
        units = [
            Unit(f"ranking-bench:{name}", benchmark_drafts, (file.path, file.form, name, side))
            for file, name, side in used
        ]
        yield Source("Ranking-bench", tuple(DATASETS), paths, units)
        for file in (file for files in by_config.values() for file in files if file.path not in paths):
            yield NotRead(
                file.path, f"{config or 'other files'} of the benchmark is read; give its path to have this one"
            )


def _config(path: Path, raw: Path) -> str:
    """Return the config by a folder's name below ``raw``, raw's own, or the file's name; "" where none names it."""
    names = [path.name.lower(), *(parent.name.lower() for parent in path.parents if parent.is_relative_to(raw))]
    return next((config for name in names for config in CONFIGS if config in name), "")


# --------------------------------------------------------------------------------------------------------------- rows


def _rows(path: Path, form: str, dropped: Counter[str]) -> Iterator[tuple[int, Any]]:
    """Yield ``(row, {column: value})`` of any of the forms. Of a CSV a row is known by the line it begins with."""
    names = (*COLUMNS, "split")
    if form == PARQUET:
        with parquet_file(path) as file:
            present = [name for name in names if name in file.schema_arrow.names]
        for row, batch in parquet_batches(path, present):
            yield from enumerate(batch.to_pylist(), row)
    elif form == ARROW:
        yield from enumerate(_arrow_rows(path), 1)
    elif form == TABLE:
        for row, fields in table_columns(path, ",", [(name,) for name in names], len(COLUMNS), dropped):
            given = dict(zip(names, fields, strict=True))
            yield row, {name: value for name, value in given.items() if (name, value) != ("split", "")}
    else:
        yield from json_records(path, dropped)


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with arrow_stream(path) as reader:
            for batch in reader:
                if any(longest_text(column) > opened.MAX_TEXT for column in batch.columns):
                    raise UserError(f"{path}: a text of more than {opened.MAX_TEXT >> 20} MB; remove it")
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a whole Arrow file ({first_line(error)}); fetch it again") from error


# -------------------------------------------------------------------------------------------------------------- tasks


def benchmark_drafts(
    path: Path, form: str, name: str, side: str | None, options: Options, datasets: Sequence[str], dropped: Dropped
) -> Iterator[Draft]:
    """Yield the tasks of a file (a unit)."""
    blank: Counter[str] = Counter()
    for number, row in _rows(path, form, blank):
        where = f"{path} row {number}"
        dataset = plain_text(row.get("task_name"), where, "task_name").strip().lower()
        if dataset not in DATASETS:
            raise UserError(f"{where}: task_name is {shown(row['task_name'])}, not one of {', '.join(DATASETS)}")
        if dataset not in datasets:
            continue
        text, gt = (plain_text(row.get(name), where, name) for name in ("problem", "gt"))
        given = _list(row, where)
        try:
            problem = problems.read_problem(dataset, text, given)
        except ValueError as error:
            raise UserError(f"{where}: problem is {shown(text)}, {error}; is it another version?") from error
        names = problem.names or [""] * len(given)
        positives = [i for i, own in enumerate(zip(given, names, strict=True)) if gt and gt in own]
        if reason := _unfit(problem, positives):
            dropped[dataset][reason] += 1
            continue
        ids = names if len(set(names)) == len(names) and all(names) else [str(i) for i in range(len(names))]
        candidates = tuple(Candidate(*pair) for pair in zip(ids, problem.candidates, strict=True))
        relevance = tuple(float(i == positives[0]) for i in range(len(candidates)))
        id, scenario = f"{dataset}:{name}:{number}", DATASETS[dataset]
        task = RankingTask(id, scenario, dataset, problem.context, candidates, relevance)
        yield Draft(task, query_key(problem.group), side or _split(row, where))
    for dataset in datasets:
        dropped[dataset].update(blank)


def _unfit(problem: Problem, positives: Sequence[int]) -> str | None:
    if not problem.group:
        return "rows: empty context"
    if not all(problem.candidates):
        return "rows: an empty candidate"
    if not positives:
        return "rows: gt is not a candidate"
    if len(positives) > 1 or problem.candidates.count(problem.candidates[positives[0]]) > 1:
        return "rows: gt is several candidates"
    if set(problem.candidates).intersection(problem.history):
        return "rows: a candidate is in the history"
    return None


def _list(row: Mapping[str, Any], where: str) -> list[str]:
    """Return the candidates, from a list or from a string that holds one (as JSON or as Python writes it)."""
    value = row.get("candidates")
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(value)
                break
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(one, str) for one in value):
        found = shown(str(row.get("candidates")))
        raise UserError(f"{where}: candidates is {found}, not a list of two texts or more; correct or remove the row")
    return value


def _split(row: Mapping[str, Any], where: str) -> str | None:
    value = row.get("split")
    if value not in (None, "train", "test"):
        raise UserError(f"{where}: split is {shown(str(value))}, not train or test; correct or remove the row")
    return value
