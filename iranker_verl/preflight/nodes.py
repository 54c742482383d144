"""What every node of a Ray cluster needs: checked on all of them before anything starts, and shown as a table where it fails.

==========================  =====================================================================================
the same on all nodes       Python and the packages of :data:`iranker_verl.provenance.PACKAGES`; this package's code;
                            the prompt template; the model's folder; the prepared data, once it is there
the same where GPUs are     kind, number and memory of the GPUs
of each node                the run's folder: there, the same one, and writable; 2 GiB free for temporary files and
                            0.5 GiB in ``/dev/shm``; an NVIDIA driver that is new enough for the CUDA of its torch
of the cluster              ``trainer.nnodes`` nodes with ``trainer.n_gpus_per_node`` GPUs each
==========================  =====================================================================================
"""

from __future__ import annotations

import hashlib
import importlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from iranker_verl.errors import UserError, described
from iranker_verl.files import make_folder
from iranker_verl.preflight.machine import MIN_DISK_BYTES, MIN_SHM_BYTES, cluster, on_cluster
from iranker_verl.provenance import versions

ASK_S = 120.0  # for all nodes to answer: they import this package, and Ray may have to bring it
# The oldest driver for each major version of CUDA (NVIDIA, CUDA Toolkit release notes, "Minor Version Compatibility").
DRIVERS = {12: 525, 13: 580}
GPU = ("GPUs", "driver")
MAY_DIFFER = ("driver",)
NO_GPU = "no GPU"
SHOWN_NODES = 4


class Fact(NamedTuple):
    """What a node reports of one thing, and what is wrong with it, independently of the others."""

    value: str
    wrong: str = ""


Facts = Mapping[str, Fact]


@dataclass(frozen=True)
class Question:
    """What is checked on each node; all of it is sent as text."""

    template: str
    run: str
    token: str  # the name and content of a file in the run's folder
    model: str | None

    def answer(self) -> dict[str, Fact]:
        """Return the report of this process's node."""
        facts = {name: Fact(version) for name, version in versions().items()}
        facts["code"] = Fact(_code_hash())
        facts["template"] = _or_wrong(self._template_hash)
        if self.model is not None:
            facts["model"] = _or_wrong(self._model_hash)
        facts["run folder"] = _or_wrong(self._run_folder)
        facts["data"] = _or_wrong(self._data_hash)
        facts["temporary files"] = _free(Path(tempfile.gettempdir()), MIN_DISK_BYTES)
        if os.path.isdir("/dev/shm"):
            facts["shared memory"] = _free(Path("/dev/shm"), MIN_SHM_BYTES)
        return facts | _gpu_facts()

    def _template_hash(self) -> str:
        from iranker_verl.ranking.templates import load

        return load(self.template).hash

    def _model_hash(self) -> str:
        from iranker_verl.inference.models import model_hash

        return model_hash(Path(str(self.model)))

    def _run_folder(self) -> str:
        run = Path(self.run)
        if (run / self.token).read_text(encoding="utf-8") != self.token:
            raise UserError(f"{run} is another folder here")
        with tempfile.TemporaryFile(dir=run):
            return "shared and writable"

    def _data_hash(self) -> str:
        from data_prep.schema import MANIFEST, read_manifest

        data = Path(self.run, "data")
        return str(read_manifest(data)["data_hash"]) if (data / MANIFEST).exists() else "not prepared yet"


def _or_wrong(find: Callable[[], str]) -> Fact:
    try:
        return Fact(find())
    except FileNotFoundError as error:
        return Fact("missing", f"{error.filename} is not there")
    except Exception as error:
        return Fact("unknown", described(error))


def _free(folder: Path, least: int) -> Fact:
    free = shutil.disk_usage(folder).free
    few = f"{folder} has {free / 2**30:.1f} GiB free, and needs {least / 2**30:.1f}" if free < least else ""
    return Fact("too few" if few else "enough", few)


def _code_hash() -> str:
    top = Path(__file__).parents[2]
    found = hashlib.sha256()
    for package in ("iranker_verl", "data_prep", "reward_fns"):
        for file in sorted((top / package).rglob("*")):
            if file.suffix in (".py", ".yaml"):
                found.update(f"{file.relative_to(top)}\n".encode() + file.read_bytes())
    return found.hexdigest()[:16]


def _gpu_facts() -> dict[str, Fact]:
    """Return the GPUs and the driver, as ``nvidia-smi`` reports."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except FileNotFoundError:
        return {"GPUs": Fact(NO_GPU)}
    except (OSError, subprocess.SubprocessError) as error:
        return {"GPUs": Fact("unknown", described(error))}
    gpus = [[part.strip() for part in line.split(",")] for line in told.splitlines() if line.strip()]
    if not gpus:
        return {"GPUs": Fact(NO_GPU)}
    kinds = ", ".join(sorted({f"{name} {memory}" for name, memory, _ in gpus}))
    driver, cuda = gpus[0][2], str(importlib.import_module("torch").version.cuda or "")
    least = DRIVERS.get(int(cuda.partition(".")[0] or 0), 0)
    old = driver.partition(".")[0].isdigit() and int(driver.partition(".")[0]) < least
    wrong = f"driver {driver} is too old for torch's CUDA {cuda}, which needs {least}" if old else ""
    return {"GPUs": Fact(f"{len(gpus)} x {kinds}"), "driver": Fact(driver, wrong)}


def check_nodes(config: DictConfig) -> None:
    """Ask every node of the cluster that a run joins. Raise UserError, and print a table, where one lacks something.

    Does nothing for a run that starts a Ray of its own.
    """
    if not on_cluster(config):
        return
    run = Path(config.iranker.run_dir).resolve()
    make_folder(run)
    token = f".iranker-node-{secrets.token_hex(8)}"
    model = str(config.actor_rollout_ref.model.path) if config.iranker.base.make is None else None
    (run / token).write_text(token, encoding="utf-8")
    try:
        found, gpus = ask(Question(str(config.iranker.template), str(run), token, model))
    finally:
        (run / token).unlink(missing_ok=True)
    _check_gpus(config, gpus)
    if rows := problems(found):
        _print(rows)
        raise UserError(
            f"the {len(found)} nodes of the cluster cannot run this together: {rows[0].of} ({rows[0].why}); the table above "
            "has all that is wrong. Make the nodes alike, or take the odd ones out of the cluster"
        )


def ask(question: Question) -> tuple[dict[str, Facts], dict[str, float]]:
    """Return what each node answers, and Ray's number of GPUs of each, by the node's name."""
    from iranker_verl.training.main import keep_present_folder_out

    keep_present_folder_out()
    with cluster() as ray:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = {_name(node): node for node in ray.nodes() if node["Alive"]}
        remote = ray.remote(num_cpus=0, max_retries=0)(_answer)
        jobs = {
            name: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                question
            )
            for name, node in nodes.items()
        }
        done, _ = ray.wait(list(jobs.values()), num_returns=len(jobs), timeout=ASK_S)
        found: dict[str, Facts] = {}
        for name, job in jobs.items():
            found[name] = {"answer": Fact("none", f"no answer within {ASK_S:.0f} s")}
            if job in done:
                try:
                    found[name] = ray.get(job)
                except Exception as error:  # whatever a node without the right packages raises
                    found[name] = {"answer": Fact("none", described(error))}
        return found, {name: node["Resources"].get("GPU", 0.0) for name, node in nodes.items()}


def _answer(question: Question) -> dict[str, Fact]:
    return question.answer()


def _name(node: Mapping[str, Any]) -> str:
    """Return a node's host name and address; two of one machine differ by the start of their ids."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def _check_gpus(config: DictConfig, gpus: Mapping[str, float]) -> None:
    wanted, each = config.trainer.nnodes, config.trainer.n_gpus_per_node
    if sum(there >= each for there in gpus.values()) < wanted:
        there = ", ".join(f"{name} {number:g}" for name, number in gpus.items())
        raise UserError(
            f"the recipe asks for {wanted} node(s) with {each} GPUs each, and Ray has: {there}; set trainer.nnodes and "
            "trainer.n_gpus_per_node to what there is"
        )


class Row(NamedTuple):
    """One value that some nodes have of what is not as it has to be."""

    of: str
    value: str
    nodes: tuple[str, ...]
    why: str


def problems(found: Mapping[str, Facts]) -> list[Row]:
    """Return the values that are wrong on a node; of a thing that differs between nodes, every value with its nodes."""
    rows: list[Row] = []
    for name in dict.fromkeys(name for facts in found.values() for name in facts):
        nodes_by_fact: dict[Fact, list[str]] = {}
        for node, fact in _said(found, name):
            nodes_by_fact.setdefault(fact, []).append(node)
        wrong = [fact for fact in nodes_by_fact if fact.wrong]
        differs = len(nodes_by_fact) > 1 and name not in MAY_DIFFER
        for fact in wrong or (nodes_by_fact if differs else ()):
            rows.append(Row(name, fact.value, tuple(nodes_by_fact[fact]), fact.wrong or "it differs"))
    return rows


def _said(found: Mapping[str, Facts], name: str) -> Iterator[tuple[str, Fact]]:
    """Yield the nodes with what they report of one thing. Nodes without GPUs, which may serve the others, report nothing of GPUs."""
    for node, facts in found.items():
        if name in ("answer", *GPU):
            if (fact := facts.get(name)) and fact.value != NO_GPU:
                yield node, fact
        elif "answer" not in facts:
            yield node, facts.get(name, Fact("missing"))


def _print(rows: Iterable[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", "value", "nodes", "what is wrong", box=None, pad_edge=False)
    for row in rows:
        more = f" and {len(row.nodes) - SHOWN_NODES} more" if len(row.nodes) > SHOWN_NODES else ""
        table.add_row(row.of, row.value, ", ".join(row.nodes[:SHOWN_NODES]) + more, row.why)
    Console(file=sys.stderr, markup=False, emoji=False, highlight=False).print(table)
