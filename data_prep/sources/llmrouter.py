"""LLMRouter's files (https://github.com/ulab-uiuc/LLMRouter): what LLMs scored on queries, in three forms.

=========================================  =============================================================================
``default_routing_train_data.jsonl``,      long, an object a query and LLM: ``task_name, query, model_name, performance,
``routing_data_train.jsonl``, …            input_tokens, output_tokens, response``
``train.json``, ``test.json`` (RouterDC)   scores, an object a query: ``question, scores: {LLM: score}``; no costs
``router_train_data_nq.json`` (Router-R1)  lists, an object a query: ``query, llm_name_list, perf_list, cost_list,
                                           source``
=========================================  =============================================================================

A file is a JSON array or JSON lines (see :mod:`data_prep.readers.lines`; strings hold U+2028), plain or gzipped, and its first
object says which form it has. All files of a folder and form are one source; by their names some are its training and its
test side (:mod:`data_prep.readers.filenames`), and without both it is split by query. Files of queries alone
(``default_query_train.jsonl``) say nothing of LLMs: they are refused where there is nothing else of LLMRouter's.

``default_llm.json`` (or ``llm_descriptions.json``), beside the file or elsewhere in the folder that is prepared, has the
LLMs' descriptions and their prices, by LLMRouter's names or by those of the API. In the long form costs are tokens times
price, in dollars, so they are not known without that file, and an LLM without a price in it is refused. A call that failed
(a response beginning with "ERROR" or "API Error") has a missing number: it cost nothing, but it is no cheap answer.

Policy beyond :mod:`data_prep.scenarios.routing`'s. Queries that are empty or no text (chats, say), and repeated queries of the last
two forms are dropped and counted. NaN is a missing number. Refused are all that is not JSON, an object without a field that its form needs, lists of different lengths, an empty LLM, what is no
number, and a cost below 0.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.readers.documents import json_records
from data_prep.readers.filenames import home, sides
from data_prep.readers.lines import NAN, optional_number
from data_prep.readers.sniff import JSON_SUFFIXES, NotRead, RawFile
from data_prep.readers.text import readable, shown
from data_prep.scenarios.descriptions import Described
from data_prep.scenarios.routing import ROUTERS, Query, Results, router_source
from data_prep.tasks import Source
from iranker_verl.errors import UserError

LLMS = ("default_llm.json", "llm_descriptions.json")
QUERIES_ONLY = {"task_name", "query", "ground_truth", "metric"}
_FAILED = ("ERROR", "API Error")
# The files of a source, each with its side of the split, if it is on one, and the place of its form in FORMS.
Parts = tuple[tuple[Path, str | None, int], ...]


@dataclass(frozen=True)
class Row:
    """An object of a file, and its position: the line, or the index in the array, from 1."""

    path: Path
    at: int
    record: Mapping[str, Any]

    def error(self, what: str) -> UserError:
        """Return the error that the row is wrong in ``what``."""
        return UserError(f"{self.path} row {self.at}: {what}; correct or remove the row")

    def number(self, given: object, column: str, least: float = -math.inf) -> float:
        """Return a number of the row; raise UserError if it is invalid, or below ``least``."""
        return optional_number(given, self.path, self.at, column, least)

    def llm(self, given: object) -> str:
        """Return the name of an LLM; raise UserError if it is empty or no text."""
        if not isinstance(given, str) or not given.strip():
            raise self.error(f"an LLM is called {shown(str(given))}")
        return readable(given)


Outcome = tuple[str, float, float]  # LLM, score, raw cost


@dataclass(frozen=True)
class Form:
    """A form of LLMRouter's files.

    ``needs`` are the fields of an object, the first of them the query; ``task`` may be there. With ``whole`` an object has all
    outcomes of its query. ``outcomes`` takes them out, with the LLMs' prices at hand.
    """

    needs: tuple[str, ...]
    task: str
    whole: bool
    outcomes: Callable[[Row, Mapping[str, Described]], Iterator[Outcome]]


def _long(row: Row, priced: Mapping[str, Described]) -> Iterator[Outcome]:
    llm, cost = row.llm(row.record["model_name"]), NAN
    score = row.number(row.record["performance"], "performance")
    tokens = [row.number(row.record.get(name), name, least=0) for name in ("input_tokens", "output_tokens")]
    if str(row.record.get("response") or "").startswith(_FAILED):
        score, tokens = NAN, [NAN, NAN]
    if priced:
        if llm not in priced:
            raise row.error(f"{shown(llm)} has no input_price and output_price in the file of descriptions")
        cost = (tokens[0] * priced[llm].input_price + tokens[1] * priced[llm].output_price) / 1e6
    yield llm, score, cost


def _scores(row: Row, priced: Mapping[str, Described]) -> Iterator[Outcome]:
    scores = row.record["scores"]
    if not isinstance(scores, dict):
        raise row.error(f"scores is {shown(str(scores))}, not an object {{LLM: score}}")
    for llm, score in scores.items():
        yield row.llm(llm), row.number(score, f"the score of {llm}"), NAN


def _lists(row: Row, priced: Mapping[str, Described]) -> Iterator[Outcome]:
    lists = [row.record[name] for name in ("llm_name_list", "perf_list", "cost_list") if name in row.record]
    if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        raise row.error("llm_name_list, perf_list and cost_list are not lists of one length")
    llms, scores, costs = lists if len(lists) == 3 else (*lists, [None] * len(lists[0]))
    for llm, score, cost in zip(llms, scores, costs, strict=True):
        yield row.llm(llm), row.number(score, f"the score of {llm}"), row.number(cost, f"the cost of {llm}", least=0)


FORMS = (
    Form(("query", "model_name", "performance"), "task_name", False, _long),
    Form(("question", "scores"), "task_name", True, _scores),
    Form(("query", "llm_name_list", "perf_list"), "source", True, _lists),
)


def find_llmrouter(files: Sequence[RawFile], raw: Path) -> Iterator[Source | NotRead]:
    """Yield JSON and JSON lines by the fields of their first object; all of one form in a folder are one source."""
    groups: dict[tuple[Path, int], list[Path]] = defaultdict(list)
    alone = []
    for file in files:
        if file.suffix in JSON_SUFFIXES:
            if (form := _form(file)) is not None:
                groups[home(file.path, raw), form].append(file.path)
            elif {*file.columns} >= QUERIES_ONLY:
                alone.append(file.path)
    for (_, form), paths in groups.items():
        parts = tuple((path, side, form) for path, side in sides(paths, raw))
        yield router_source("LLMRouter", [path for path, *_ in parts], LLMS, partial(read_llmrouter, parts), files, raw)
    if alone and not groups:
        refused = (
            f"{alone[0]}: queries only, without what any LLM scored on them; bring LLMRouter's routing data "
            "(default_routing_train_data.jsonl and default_routing_test_data.jsonl)"
        )
        yield Source("LLMRouter", ROUTERS, (alone[0],), refused=refused)
    for path in alone if groups else ():
        yield NotRead(path, "queries only; what LLMs scored on them is in the files that are read")


def _form(file: RawFile) -> int | None:
    """Return the place of a file's form in :data:`FORMS`; None for none of them."""
    if not file.columns and file.suffix == ".jsonl" and "routing" in file.name:
        return 0  # by its name it is LLMRouter's; reading it will tell what is wrong
    return next((place for place, form in enumerate(FORMS) if {*form.needs} <= {*file.columns}), None)


def read_llmrouter(parts: Parts, described: Mapping[str, Described]) -> Results:
    """Return the objects of the files in the neutral form. Raise UserError with row and field."""
    results = Results()
    priced = {llm: entry for llm, entry in described.items() if not math.isnan(entry.listed)}
    for path, side, place in parts:
        form = FORMS[place]
        for at, record in json_records(path, results.dropped, json.loads):  # Python's json: it knows NaN
            row = Row(path, at, record)
            if missing := [name for name in form.needs if name not in record]:
                raise row.error(f"no field {missing[0]!r} (it needs {', '.join(form.needs)})")
            given = record[form.needs[0]]
            text = readable(given) if isinstance(given, str) else ""
            task = readable(str(record.get(form.task) or ""))
            query = Query(text, task, task, side)
            if not text:
                results.dropped[f"rows: query is {'empty' if isinstance(given, str) else 'no text'}"] += 1
            elif form.whole and query in results.queries:
                results.dropped["rows: repeated query"] += 1
            else:
                for llm, score, cost in form.outcomes(row, priced):
                    results.add(query, llm, score, cost_raw=cost)
    return results
