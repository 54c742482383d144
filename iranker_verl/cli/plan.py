"""``iranker plan``: memory, disk, time and money of a recipe, before anything starts; exit code 2 where it cannot fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iranker_verl.cli.options import with_options_of
from iranker_verl.cli.tables import Part, show, table
from iranker_verl.errors import UserError
from iranker_verl.plan.rates import Rates

if TYPE_CHECKING:
    from iranker_verl.plan.duration import Scaled
    from iranker_verl.plan.planner import Plan

GIB = 2**30
# Parts of a GPU's memory (iranker_verl/plan/memory.py), as columns.
PARTS = (
    *("weights", "gradients", "optimiser", "gathered", "activations", "logits"),
    *("vLLM", "KV cache", "CUDA", "libraries", "allocator"),
)
SHORT = {"gradients": "grads", "optimiser": "optim.", "gathered": "gath.", "activations": "activ.", "KV cache": "KV"}


@with_options_of(Rates, "rates")
def plan(
    recipe: Annotated[str, typer.Argument(help="a folder of recipes/, or a YAML file")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Hydra overrides, e.g. cluster=4x80")] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs a node (trainer.n_gpus_per_node)")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="nodes (trainer.nnodes)")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=1, help="GiB of a GPU (iranker.gpu_memory)")] = None,
    host_memory: Annotated[float | None, typer.Option(min=1, help="GiB of a node; not checked without it")] = None,
    prompt_tokens: Annotated[
        float | None, typer.Option(min=1, help="of a prompt, mean [default: 3/4 of the limit]")
    ] = None,
    answer_tokens: Annotated[
        float | None, typer.Option(min=1, help="of an answer, mean [default: half the limit]")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="the step on 1 to 64 nodes, and where scaling ends")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="draw --simulate into this file (.png, .svg)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    *,
    rates: Rates,
) -> None:
    """Count the GPUs, hosts, disk and time that a recipe takes; refuse what cannot fit, and name what would make it fit."""
    from iranker_verl.plan import duration, planner
    from iranker_verl.plan.placement import supervised, work_of
    from iranker_verl.preflight import check
    from iranker_verl.training.main import compose_recipe, named_options

    given = {"trainer.n_gpus_per_node": gpus, "trainer.nnodes": nodes, "iranker.gpu_memory": gpu_memory}
    options = [*(overrides or []), *(f"{name}={value}" for name, value in given.items() if value is not None)]
    config = compose_recipe(recipe, options)
    check(config, named_options(recipe, options))
    if config.trainer.device == "cpu" and (gpus or gpu_memory or simulate or plot):
        raise UserError(
            f"{recipe} runs on a CPU: --gpus, --gpu-memory, --simulate and --plot are for GPUs; leave them out"
        )
    if supervised(config) and (simulate or plot):
        raise UserError(f"{recipe} is supervised and trains on one machine: leave out --simulate and --plot")
    work = work_of(config, prompt_tokens, answer_tokens)
    made = planner.plan(config, rates, work, host_memory)
    scaled = list(duration.simulate(config, rates, work)) if simulate or plot else []
    if as_json:
        content = made.to_dict() | {"rates": asdict(rates)}
        if scaled:
            content["simulated"] = [asdict(one) for one in scaled]
            content["scaling_ends_at_nodes"] = duration.last_useful(scaled).nodes
        print(json.dumps(content, indent=2))
    else:
        show(_tables(made, rates, scaled))
    if plot:
        _draw(scaled, plot)
    if made.problem:
        raise UserError(f"{recipe} does not fit: {made.problem}; {planner.advice(config, host_memory)}")


def _tables(made: Plan, rates: Rates, scaled: list[Scaled]) -> Iterator[Part]:
    yield _phases(made)
    yield _other_memory(made)
    if not made.machine.cpu:
        yield _times(made, rates)
    if scaled:
        yield _scaled(scaled)


def _phases(made: Plan) -> Part:
    machine, peak = made.machine, made.peak
    parts = [part for part in PARTS if any(part in phase.parts for phase in made.phases)]
    shown = table("GiB", *(SHORT.get(part, part) for part in parts), "total")
    shown.columns[0].no_wrap = True
    for phase in made.phases:
        shown.add_row(phase.name, *(_gib(phase.parts.get(part, 0)) for part in parts), _gib(phase.total))
    if machine.cpu:
        return (
            "Memory of the process that trains",
            shown,
            f"{made.model / 1e6:,.1f} million weights; most in: {peak.name}",
        )
    name = f"A GPU of {machine.devices}, of {machine.memory / GIB:g} GiB"
    note = f"{made.model / 1e9:.2f} billion weights; most in: {peak.name}, {peak.total / machine.memory:.0%} of a GPU"
    keeps = f"; vLLM keeps keys and values of {made.cache_tokens:,} tokens" if made.cache_tokens else ""
    return name, shown, note + keeps


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}" if size else ""


def _other_memory(made: Plan) -> Part:
    shown = table("", "GB")
    for part, size in made.host.items():
        if size:
            shown.add_row(f"memory of a node: {part}", f"{size / 1e9:,.0f}")
    shown.add_row("memory of a node", f"{sum(made.host.values()) / 1e9:,.0f}")
    for part, size in made.save.items():
        shown.add_row(f"a save: {part}", f"{size / 1e9:,.0f}")
    shown.add_row("a save", f"{sum(made.save.values()) / 1e9:,.0f}")
    shown.add_row(f"disk: {made.saves_kept} saves, and one that is being written", f"{made.disk / 1e9:,.0f}")
    return "Nodes and disk", shown, ""


def _times(made: Plan, rates: Rates) -> Part:
    shown = table("a step", "seconds", "share")
    for part, seconds in made.step.parts.items():
        shown.add_row(part, f"{seconds:,.1f}", f"{seconds / made.step.seconds:.0%}")
    shown.add_row("total", f"{made.step.seconds:,.1f}", "")
    work, money = made.work, made.money
    note = (
        f"{work.all_rows:,} rows at most, of {work.prompt:,.0f} and {work.answer:,.0f} tokens, {work.tokens / 1e6:,.2f} million; "
        f"{made.steps:,} steps: {made.hours:,.1f} hours"
        + (f", {money:,.0f} at {rates.price:g} a GPU and hour" if money is not None else "")
    )
    return "Time, from stated rates (none was measured here)", shown, note


def _scaled(scaled: list[Scaled]) -> Part:
    from iranker_verl.plan.duration import GAIN, last_useful

    shown = table("nodes", "GPUs", "seconds a step", "times as fast", "of ideal", "longest")
    for one in scaled:
        shown.add_row(
            *(
                f"{one.nodes}",
                f"{one.devices}",
                f"{one.seconds:,.1f}",
                f"{one.speedup:.1f}",
                f"{one.efficiency:.0%}",
                one.largest,
            )
        )
    end = last_useful(scaled).nodes
    beyond = f"beyond {end} nodes, twice as many make a step less than {GAIN:g} times as fast"
    return (
        "The same step on more nodes",
        shown,
        beyond if end < scaled[-1].nodes else "scaling does not end before 64 nodes",
    )


def _draw(scaled: list[Scaled], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 3.5), layout="constrained")
    nodes: list[Any] = [one.nodes for one in scaled]
    axes.loglog(nodes, [one.seconds for one in scaled], marker="o", label="simulated")
    axes.loglog(nodes, [scaled[0].seconds / one for one in nodes], linestyle=":", label="ideal")
    axes.set(xlabel="nodes", ylabel="seconds a step", xticks=nodes, xticklabels=[str(one) for one in nodes])
    axes.legend()
    try:
        figure.savefig(path)
    except ValueError as error:  # a format that matplotlib does not have
        raise UserError(f"--plot {path}: {error}") from error
