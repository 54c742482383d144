"""Which way imports go (``[tool.importlinter]`` in pyproject.toml), and what an import costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*LINTER["root_packages"], include_external_packages=True, cache_dir=None)


def test_every_contract_about_imports_holds(capsys):
    outcome = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert outcome == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_every_room_of_the_package_has_its_layer(graph):
    (layers,) = (contract["layers"] for contract in LINTER["contracts"] if contract["type"] == "layers")
    named = {room.strip(" ()") for layer in layers for room in layer.replace("|", ":").split(":")}
    assert named >= graph.find_children("iranker_verl")


def test_rewards_import_the_standard_library_alone(graph):
    rooms = ("reward_fns", *graph.find_descendants("reward_fns"))
    imported = set().union(*(graph.find_modules_directly_imported_by(room) for room in rooms))
    assert imported - set(rooms) <= sys.stdlib_module_names


@pytest.mark.parametrize("package", ["iranker_verl", "reward_fns", "data_prep", "iranker_verl.cli"])
def test_importing_a_package_loads_no_heavy_library(package):
    heavy = "{'torch', 'verl', 'vllm', 'ray', 'transformers', 'pandas', 'pyarrow', 'scipy'}"
    code = f"import {package}, sys; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True)
    assert done.stdout.split() == []
