"""``iranker evaluate``: a model against its baselines on prepared data."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iranker_verl.cli.options import CONSTRAINED, ENDPOINT, MODEL, PER_CALL, per_call_of
from iranker_verl.cli.score import score
from iranker_verl.cli.tables import show, table
from iranker_verl.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from iranker_verl.inference.endpoint import Endpoint
    from iranker_verl.ranking import RankingTask

# options that have an effect only where another is given
NEEDS = {
    "run": ("measures",),
    "model": (
        *("method", "template", "orders", "temperature", "max_new_tokens", "prices", "cot", "concurrency"),
        *("shards", "system", "role", "per_call", "constrained"),
    ),
    "cot": ("examples", "retriever"),
}


def evaluate(
    context: typer.Context,
    model: Annotated[str | None, MODEL] = None,
    data: Annotated[Path | None, typer.Option(help="folder of `iranker prepare`")] = None,
    out: Annotated[Path | None, typer.Option(help="folder for results; an interrupted evaluation is resumed")] = None,
    endpoint: Annotated[str | None, typer.Option(help=ENDPOINT)] = None,
    method: Annotated[
        str | None, typer.Option(help="iterative, direct, setwise, pairwise or allpairs [default: the template's]")
    ] = None,
    template: Annotated[str | None, typer.Option(help="prompt template [default: the data's, or the method's]")] = None,
    tasks: Annotated[str | None, typer.Option(help="datasets, separated by commas [default: all]")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="only the first tasks of each dataset, for a try")] = None,
    orders: Annotated[int, typer.Option(min=1, help="candidate orders of each task: mean, spread, position bias")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="cap of an answer")] = 1024,
    baselines: Annotated[
        str, typer.Option(help="baselines by name, separated by commas; all or none")
    ] = "random,constant,popularity,bm25",
    rivals: Annotated[str | None, typer.Option(hidden=True)] = None,
    models: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FOLDER", help="a baseline's weights; again for more")
    ] = None,
    per_call: Annotated[str, typer.Option(help=PER_CALL)] = "1",
    constrained: Annotated[bool, typer.Option(help=CONSTRAINED)] = False,
    prices: Annotated[Path | None, typer.Option(help="YAML {model: {input: …, output: …}}, dollars a million")] = None,
    cot: Annotated[
        Path | None, typer.Option(help="store of `iranker cot collect`, for a model that has not been trained")
    ] = None,
    thoughts: Annotated[Path | None, typer.Option(hidden=True)] = None,
    examples: Annotated[int, typer.Option(min=1, help="reasoning traces a prompt, with --cot")] = 1,
    retriever: Annotated[
        str | None, typer.Option(help="sentence-transformers folder that finds like contexts [default: words, BM25]")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="the engine's batch, or a server's requests at once")] = 64,
    shards: Annotated[int, typer.Option(min=1, help="Ray workers with an engine each")] = 1,
    system: Annotated[
        str,
        typer.Option(help="the model's name in the results, beside those before in OUT"),
    ] = "after",
    role: Annotated[
        str | None,
        typer.Option(help="before and after (training) make a pair; else model [default: by --system, else model]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="of orders, samples and baselines")] = 1,
    run: Annotated[Path | None, typer.Option(hidden=True)] = None,
    qrels: Annotated[Path | None, typer.Option(hidden=True)] = None,
    measures: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Rank every test task with a model and its baselines, and write results.json and TREC files."""
    if thoughts is not None:
        print("--thoughts is --cot now", file=sys.stderr)
        cot = thoughts
    if run is not None or qrels is not None:
        if run is None or qrels is None:
            raise UserError("to score a run file, use: iranker score RUN QRELS")
        _check_effect(context)
        print(f"evaluate --run is now: iranker score {run} {qrels}", file=sys.stderr)
        score(run, qrels, measures)
        return
    if rivals is not None:
        print("--rivals is now --baselines", file=sys.stderr)
        baselines = rivals
    if data is None or out is None:
        raise UserError("give --data and --out (and --model); to score a run file, use: iranker score RUN QRELS")
    if model is None and (endpoint is not None or baselines == "none"):
        raise UserError("give --model" + (", the server's name of it" if endpoint else ", or baselines"))
    _check_effect(context)

    from data_prep.schema import read_manifest, read_tasks
    from iranker_verl.evaluation.baselines import Context
    from iranker_verl.evaluation.evaluate import evaluate_systems
    from iranker_verl.evaluation.methods import choose
    from iranker_verl.evaluation.prices import read_price
    from iranker_verl.evaluation.systems import ModelSystem, Role, role_by_name
    from iranker_verl.inference.models import trained_with
    from iranker_verl.provenance import versions
    from iranker_verl.ranking import by_dataset

    manifest = read_manifest(data, "data_hash")
    used, chosen = choose(method, template, manifest)
    proof = None
    if cot is not None:
        from iranker_verl.evaluation.cot.template import with_traces

        chosen, proof = with_traces(chosen, cot, data, examples, retriever)
    names = _baselines(baselines, system)
    if role is not None and role not in list(Role):
        raise UserError(f"--role {role}: choose one of {', '.join(Role)}")
    made_with = Context(seed, _models(models or [], names), log=print)
    systems: list[Any] = list(names)
    if model is not None:
        name = model if endpoint else Path(model).resolve().name
        asked = _model(model, endpoint)
        stamp = trained_with(asked) if isinstance(asked, Path) else None
        constrained = constrained or (stamp is not None and stamp.constrained)  # as it was trained
        systems.append(
            ModelSystem(
                system,
                asked,
                chosen,
                role_by_name(system) if role is None else Role(role),
                max_new_tokens,
                temperature,
                orders,
                concurrency,
                shards,
                read_price(prices, name) if prices is not None else None,
                per_call_of(per_call),
                constrained,
            )
        )
    train, test = (read_tasks(data / f"{split}.parquet") for split in ("train", "test"))
    test = [task for own in by_dataset(_chosen(test, tasks)).values() for task in own[:limit]]
    datasets = {task.dataset for task in test}
    content = evaluate_systems(
        systems,
        test,
        out,
        train=[task for task in train if task.dataset in datasets],
        context=made_with,
        seed=seed,
        made_of={
            "versions": versions(),
            "data_hash": manifest["data_hash"],
            "template_hash": chosen.hash,
            "config": {
                **{"model": model, "endpoint": endpoint, "method": used, "template": chosen.id, "data": str(data)},
                **{"tasks": tasks, "limit": limit, "orders": orders, "temperature": temperature},
                **{"per_call": per_call, "constrained": constrained},
                **{"max_new_tokens": max_new_tokens, "baselines": list(names), "models": dict(made_with.models)},
                "cot": proof.to_json() | {"examples": examples, "retriever": retriever} if proof is not None else None,
            },
        },
    )
    _print(content)
    print(out / "results.json")


def _check_effect(context: typer.Context) -> None:
    """Raise UserError for an option that was given but would have no effect."""
    given = [name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"]  # type: ignore[union-attr]
    given = ["cot" if name == "thoughts" else name for name in given]  # its former name
    if "run" in given:
        if idle := [name for name in given if name not in ("run", "qrels", *NEEDS["run"])]:
            raise UserError(
                f"{_option(idle[0])} has no effect with --run and --qrels, which only score a run file; leave it out"
            )
        return
    for needed, names in NEEDS.items():
        if needed not in given and (idle := [name for name in given if name in names]):
            raise UserError(f"{_option(idle[0])} has no effect without {_option(needed)}; give that, or leave it out")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _model(model: str, endpoint: str | None) -> Path | Endpoint:
    from iranker_verl.inference.endpoint import Endpoint
    from iranker_verl.inference.models import model_folder

    return model_folder(model) if endpoint is None else Endpoint(endpoint, model)


def _baselines(names: str, system: str) -> tuple[str, ...]:
    import re

    from iranker_verl.evaluation.baselines import BASELINES

    if not re.fullmatch(r"[\w-][\w.-]*", system) or system in BASELINES:
        raise UserError(f"--system {system!r}: it names files: letters, digits, -, _ and dots, and no baseline's name")
    if names in ("all", "none"):
        return tuple(BASELINES) if names == "all" else ()
    listed = tuple(dict.fromkeys(name.strip() for name in names.split(",")))
    for name in listed:
        if name not in BASELINES:
            raise UserError(f"unknown baseline {name!r}; choose from {', '.join(BASELINES)}, all or none")
    return listed


def _models(given: Sequence[str], baselines: Sequence[str]) -> dict[str, str]:
    from iranker_verl.evaluation.baselines import BASELINES

    found = {}
    for one in given:
        name, equals, folder = one.partition("=")
        if not equals or not folder or name not in BASELINES:
            raise UserError(f"--models {one}: NAME=FOLDER is needed, NAME one of {', '.join(BASELINES)}")
        if name not in baselines:
            raise UserError(
                f"--models {one} has no effect, as --baselines does not name {name}; add it, or leave it out"
            )
        found[name] = folder
    return found


def _chosen(found: Sequence[RankingTask], names: str | None) -> list[RankingTask]:
    if names is None:
        return list(found)
    wanted, known = [name.strip() for name in names.split(",")], {task.dataset for task in found}
    if missing := [name for name in wanted if name not in known]:
        raise UserError(f"no test task of {missing[0]!r} in the data; it holds {', '.join(sorted(known)) or 'none'}")
    return [task for task in found if task.dataset in wanted]


def _print(content: Mapping[str, Any]) -> None:
    made = table("system", "RR", "strict", "nDCG@10", "Hit@1", "malformed", "tasks")
    for name, numbers in content["macro"].items():
        rate = numbers["malformed_rate"]
        shown = [f"{numbers[key]:.4f}" for key in ("rr", "rr_strict", "ndcg@10", "hit@1")]
        made.add_row(name, *shown, "–" if rate is None else f"{100 * rate:.1f} %", f"{numbers['n']:,}")
    notes = []
    for name, numbers in content["macro"].items():
        if (orders := numbers["orders"]) is not None:
            spread = (
                f"{orders['k']} orders, whose RR has a standard deviation of {orders['sd']:.4f}; "
                if orders["sd"]
                else ""
            )
            notes.append(f"{name}: {spread}position bias {orders['position_bias']:+.3f} (0 is none)")
    notes += [f"{name}: unavailable, {reason}" for name, reason in content["unavailable"].items()]
    show([("Mean over datasets", made, "\n".join(notes))])
