"""What LLMs did on queries of a user's own: ``query, llm, effect, cost``, a row a query and LLM, in any order.

A file holds three datasets, as GraphRouter's does: ``X-performance``, ``X-cost`` and ``X-balance`` for ``X.csv``, so that
``router.csv`` holds the paper's three, and ``router-cost.csv`` the one. ``effect`` may have any scale, and ``cost`` any unit: both are brought to [0, 1], see
:mod:`data_prep.scenarios.routing`, which also says what is dropped. ``description`` and ``price`` of an LLM are shown with it; the
first row that has one tells, and another one later is refused. ``split`` says on which side a query is. Refused are also
an empty query or LLM, a number that is none or below 0 (a missing one is counted), and a query on two sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.custom import Side, own_rows, text
from data_prep.options import Options
from data_prep.readers.lines import optional_number
from data_prep.readers.text import readable, shown
from data_prep.scenarios.descriptions import Described
from data_prep.scenarios.routing import ROUTERS, Query, Results, routing_drafts
from data_prep.tasks import Draft, Dropped
from iranker_verl.errors import UserError
from iranker_verl.ranking.text import one_line

COLUMNS = ("query", "llm", "effect", "cost")


def routing_datasets(name: str) -> tuple[str, ...]:
    """Return the datasets of a file called ``name``: the paper's three weightings, or the one that it is called after."""
    return (name,) if name in ROUTERS else tuple(router.replace("router", name, 1) for router in ROUTERS)


def own_routing_drafts(path: Path, options: Options, datasets: Sequence[str], dropped: Dropped) -> Iterator[Draft]:
    """Yield the tasks of a file (a unit)."""
    results, described = read_own_routing(path)
    return routing_drafts(results, described, options, datasets, dropped, path)


def read_own_routing(path: Path) -> tuple[Results, dict[str, Described]]:
    """Return the rows in the neutral form, and what they tell of the LLMs."""
    results = Results()
    described: dict[str, Described] = {}
    side = Side(path)
    sides: dict[str, str | None] = {}
    for row, values in own_rows(path, (*COLUMNS, "description", "price", "split"), len(COLUMNS), results.dropped):
        query, llm = (readable(text(values[i], path, row, COLUMNS[i])) for i in (0, 1))
        for column, given in zip(COLUMNS, (query, llm), strict=False):
            if not given:
                raise UserError(f"{path} row {row}: {column} is empty; correct or remove the row")
        own = side(values[6], row)
        if sides.setdefault(query, own) != own:
            raise UserError(f"{path} row {row}: the query {shown(query)} is on both sides of the split; choose one")
        effect = optional_number(values[2], path, row, "effect")
        cost = optional_number(values[3], path, row, "cost", least=0)
        results.add(Query(query, side=own), llm, effect, cost_raw=cost)
        _describe(described, llm, values[4:6], path, row)
    return results, described


def _describe(described: dict[str, Described], llm: str, values: Sequence[Any], path: Path, row: int) -> None:
    """Add a row's ``values``, description and price, "" where it has none."""
    known = described.get(llm, Described())
    given = {"text": one_line(text(values[0], path, row, "description")), "price": one_line(str(values[1]))}
    for name, new in given.items():
        was = getattr(known, name)
        if new and was and new != was:
            raise UserError(f"{path} row {row}: {shown(llm)} is described as {shown(new)}, and before as {shown(was)}")
    if any(given.values()):
        described[llm] = replace(known, text=given["text"] or known.text, price=given["price"] or known.price)
