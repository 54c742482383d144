"""What each difference between the paper's words and IRanker's public code does to the numbers (docs/reproduction.md).

The data is prepared as the paper says, then with one switch of :data:`data_prep.options.PUBLIC_CODE` after the other, then with
all of them, and the same systems rank each. ``rows`` is no switch here: it changes what a language model is trained on, while
tests have whole tasks either way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_prep.options import PUBLIC_CODE, Options
from data_prep.prepare import prepare
from data_prep.schema import read_tasks
from iranker_verl import __version__
from iranker_verl.evaluation.evaluate import System, evaluate_systems
from iranker_verl.files import claimed, write_json
from iranker_verl.ranking.templates import load

PAPER, CODE = "paper's words", "public code"
BASELINES = ("random", "popularity", "bm25", "sasrec", "bpr")


def variants(seed: int) -> dict[str, Options]:
    """Return the options of each row of the table, by its name: the paper's words, each switch alone, the public code."""
    switches = {name: value for name, value in PUBLIC_CODE.items() if name != "rows"}
    alone = {f"{name}={value}": Options(seed=seed, **{name: value}) for name, value in switches.items()}
    return {PAPER: Options(seed=seed)} | alone | {CODE: Options(seed=seed, **switches)}


def reproduce(
    raw: Path | str,
    out: Path,
    *,
    tasks: Sequence[str] = (),
    systems: Callable[[], Iterable[System]] = lambda: BASELINES,
    template: str = "label",
    seed: int = 1,
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Return, and write into ``out``/reproduction.json, a row for each variant, dataset and system: its MRR and tasks.

    A switch that leaves the data as the paper's words make it has no rows. Whatever an earlier call finished is used again.
    ``systems`` makes the systems of a variant; ``seed`` is of preparation, baselines and intervals. Raise UserError as
    preparation and evaluation do.
    """
    found, hashes = list[dict[str, Any]](), dict[str, str]()
    with claimed(out):
        for number, (name, options) in enumerate(variants(seed).items()):
            folder = out / f"{number:02d}"
            manifest = prepare(raw, folder / "data", load(template), options, tasks or None)
            if manifest["data_hash"] in hashes.values():
                log(f"{name}: no effect on this data")
                continue
            log(name)
            hashes[name] = manifest["data_hash"]
            results = evaluate_systems(
                systems(),
                read_tasks(folder / "data" / "test.parquet"),
                folder / "evaluation",
                train=read_tasks(folder / "data" / "train.parquet"),
                seed=seed,
                made_of={"data_hash": manifest["data_hash"]},
                log=lambda line: None,
            )
            found += _rows(name, results)
        write_json(
            out / "reproduction.json", {"version": __version__, "seed": seed, "data_hash": hashes, "rows": found}
        )
    return found


def _rows(variant: str, results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for dataset, systems in results["datasets"].items():
        for system, numbers in systems.items():
            yield {
                **{"variant": variant, "dataset": dataset, "system": system},
                **{"rr": numbers["rr"], "ci": numbers["ci95"], "tasks": numbers["n"]},
            }
