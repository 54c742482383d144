"""Prompt templates: data files in ``templates/``, rendered the same way in preparation, rollout, evaluation and serving.

A template file is YAML:

``id``         its name; it travels with every row, checkpoint and result
``kind``       ``exclusion`` (the answer names the worst candidate; the default), ``direct`` (the whole ranking at once), or one
               that sorts (:mod:`iranker_verl.ranking.sorting`): ``setwise`` (the answer names the best of a few),
               ``pairwise`` and ``allpairs`` (the better of two). What sorts is for evaluation only
``answer``     ``label`` or ``text``: how its prompt asks for candidates to be named
``candidate``  one line a candidate, with ``{label}`` and ``{text}``
``system``     a text without fields, or null
``user``       a text for each scenario, and for any single dataset (``rec-movie``, …), which then goes before the
               scenario's. Each has ``{context}`` and then ``{candidates}``, context first, so that the steps of an episode
               share their longest prefix; ``{n}``, the number of candidates, is best put after them, as it changes
``begin``      optional: how the answer begins, such as ``<think>``; the model continues it
``unreadable`` optional, of an exclusion that names no candidate: ``last`` excludes the pool's last one (the default), ``nearest``
               the one most like the answer (:mod:`iranker_verl.ranking.nearest`, as published)

A text with fields is parsed once, into :func:`pieces`; whoever renders (here a state, in preparation whole columns)
concatenates the literals and the fields' values. What a value holds is text and nothing else, braces too.

The hash covers the meaning (parsed content), not the file's comments. It travels with the id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from iranker_verl.aliases import check_aliases
from iranker_verl.errors import UserError, first_line
from iranker_verl.ranking.direct import DirectRanking
from iranker_verl.ranking.elimination import Elimination, Share
from iranker_verl.ranking.sorting import AllPairs, Pairwise, Setwise, Sorting
from iranker_verl.ranking.task import DATASETS, SCENARIOS, RankingTask
from reward_fns.answers import label

Message = dict[str, str]
State = Elimination | DirectRanking | Setwise | Pairwise | AllPairs

_MACHINES: dict[str, type[State]] = {
    "exclusion": Elimination,
    "direct": DirectRanking,
    "setwise": Setwise,
    "pairwise": Pairwise,
    "allpairs": AllPairs,
}
KINDS = tuple(_MACHINES)
ANSWERS = ("label", "text")
_RUNS = {
    "exclusion": "excludes one candidate a step",
    "direct": "asks for the whole ranking at once",
    "setwise": "asks for the best of a few",
    "pairwise": "asks for the better of two",
    "allpairs": "asks for the better of two, of every pair",
}
UNREADABLE = ("last", "nearest")
_FIELDS = ("id", "kind", "answer", "candidate", "system", "user")
# What a file leaves out means the default, so the default is left out of what is hashed.
_DEFAULTS: dict[str, Any] = {"kind": "exclusion", "begin": None, "unreadable": "last"}
_FIELD = re.compile(r"\{(\w+)\}")
_USER_FIELDS = ("context", "candidates", "n")
_CANDIDATE_FIELDS = ("label", "text")


@cache
def pieces(text: str) -> tuple[str, ...]:
    """Split ``text`` into literal, field, literal, …, literal: every second piece is the name of a field, without its braces.

    Their number is odd and literals may be empty: ``"[{label}] {text}"`` is ``("[", "label", "] ", "text", "")``.
    """
    return tuple(_FIELD.split(text))


def _fill(parts: tuple[str, ...], /, **values: str) -> str:
    return "".join(values[part] if i % 2 else part for i, part in enumerate(parts))


@dataclass(frozen=True)
class Template:
    """A parsed template file. ``hash`` is 16 hex digits of SHA-256 over its content."""

    id: str
    kind: str
    answer: str
    candidate: str
    system: str | None
    user: dict[str, str]
    hash: str
    begin: str | None = None
    unreadable: str = "last"

    def start(self, task: RankingTask, window: int | None = None, per_call: int | Share = 1) -> State:
        """Return the state machine of this kind of template, before its first prompt.

        ``window`` and ``per_call`` are :class:`~iranker_verl.ranking.elimination.Elimination`'s; the other kinds know neither.
        """
        if self.kind == "exclusion":
            return Elimination(task, window, per_call, nearest=self.unreadable == "nearest")
        return _MACHINES[self.kind](task)

    @property
    def asks_for_a_label(self) -> bool:
        """Whether the response is the label of the candidate to exclude and nothing else, without a reasoning trace."""
        return self.kind == "exclusion" and self.answer == "label" and not self.asks_for_reasoning

    @property
    def asks_for_reasoning(self) -> bool:
        """Whether some text of the template names the tag of a reasoning trace."""
        return "<think>" in repr(self)

    def user_pieces(self, dataset: str, scenario: str) -> tuple[str, ...]:
        """Return the :func:`pieces` of the user message for a dataset's tasks: the dataset's own text, or its scenario's.

        The fields are ``context``; ``candidates``, the candidates' lines joined by a line feed; and ``n``.
        """
        own = dataset in DATASETS and dataset in self.user
        return pieces(self.user[dataset if own else scenario])

    @property
    def candidate_pieces(self) -> tuple[str, ...]:
        """The :func:`pieces` of a candidate's line. The fields are ``label`` and ``text``."""
        return pieces(self.candidate)

    def messages(self, state: State) -> list[Message]:
        """Return the chat messages of an episode's present step. UserError where the template is of another kind."""
        run = next(kind for kind, machine in _MACHINES.items() if type(state) is machine)
        if run != self.kind:
            fit = [name for name in available() if load(name).kind == run]
            raise UserError(
                f"template {self.id} is of kind {self.kind}, but what runs here {_RUNS[run]}; use one like {', '.join(fit)}"
            )
        return self._messages(state.task, [c.text for c in state.pool])

    def longest(self, task: RankingTask, length: Callable[[str], int], window: int | None = None) -> list[Message]:
        """Return the messages of the longest prompt that ranking ``task`` may take; ``length`` measures a text.

        It is the first prompt, except where a prompt has a part of the candidates: then it is that of the longest texts. In
        tokens it may be one or two short for every candidate, as texts are measured one by one.
        """
        texts, most = [c.text for c in task.candidates], self.most_candidates(window)
        if most is not None and most < len(texts):
            texts = sorted(texts, key=length, reverse=True)[:most]
        return self._messages(task, texts)

    def most_candidates(self, window: int | None = None) -> int | None:
        """Return the most candidates of a prompt; None for all of the task's."""
        machine = _MACHINES[self.kind]
        if issubclass(machine, Sorting):
            return machine.most_candidates
        return window if self.kind == "exclusion" else None

    def _messages(self, task: RankingTask, texts: Sequence[str]) -> list[Message]:
        return self.around(self.question(task.dataset, task.scenario, task.context, texts))

    def around(self, question: str) -> list[Message]:
        """Return the chat messages around a user message: the system's before it, and how the answer begins after it."""
        head = [{"role": "system", "content": self.system}] if self.system else []
        begun = [{"role": "assistant", "content": self.begin}] if self.begin else []
        return [*head, {"role": "user", "content": question}, *begun]

    def question(self, dataset: str, scenario: str, context: str, texts: Sequence[str]) -> str:
        """Return the user message with ``texts``, in this order, as the candidates."""
        lines = [_fill(self.candidate_pieces, label=label(i), text=text) for i, text in enumerate(texts)]
        return _fill(
            self.user_pieces(dataset, scenario), context=context, candidates="\n".join(lines), n=str(len(lines))
        )

    def answer_for(self, state: State, *indices: int) -> str:
        """Return the answer, in this template's form, that names the candidates at ``indices`` (used to teach the format).

        An exclusion names one, the worst; a direct ranking all, best first: labels joined by `` > ``, texts one a line.
        """
        return self.answer_of([c.text for c in state.pool], *indices)

    def answer_of(self, texts: Sequence[str], *indices: int) -> str:
        """Return :meth:`answer_for`'s answer, given the prompt's texts."""
        if self.answer == "label":
            return " > ".join(f"[{label(index)}]" for index in indices)
        return "\n".join(texts[index] for index in indices)


def available() -> list[str]:
    """Return the ids of the templates that come with the package."""
    folder = resources.files(__package__) / "templates"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


@cache
def load(name: str) -> Template:
    """Return a template by id, or from a ``.yaml`` file. UserError names the file and the field that is wrong."""
    name = str(name)  # null, from a config
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"{name}: no such template file")
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"template {name}: not a readable UTF-8 file ({error})") from error
    elif name in available():
        source = (resources.files(__package__) / "templates" / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        raise UserError(f"unknown template {name!r}; choose one of {', '.join(available())} or give a .yaml file")
    return parse(source, name)


class _Loader(yaml.SafeLoader):
    """YAML in which a key that occurs twice is an error: its first text would be lost in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} occurs twice")
        return super().construct_mapping(node, deep)


def parse(source: str, name: str) -> Template:
    """Return a template from YAML text; ``name`` is for error messages."""
    check_aliases(source, f"template {name}")
    try:
        content: Any = yaml.load(source, _Loader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise UserError(f"template {name}: not valid YAML ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"template {name}: it has to be a mapping with the fields {', '.join(_FIELDS)}")
    content = _DEFAULTS | content
    known = {*_FIELDS, *_DEFAULTS}
    if wrong := sorted(map(str, set(content) ^ known)):
        what = "unknown" if wrong[0] not in known else "missing"
        raise UserError(
            f"template {name}: field {wrong[0]} is {what}; it needs {', '.join(_FIELDS)}, and may have begin and unreadable"
        )
    _check(content, name)
    meaning = {key: value for key, value in content.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}
    try:
        canonical = json.dumps(meaning, sort_keys=True, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"template {name}: it holds {error.object[error.start]!a}, which is no character") from error
    return Template(**content, hash=hashlib.sha256(canonical).hexdigest()[:16])


def _check(content: dict[str, Any], name: str) -> None:
    for field in ("id", "candidate"):
        if not isinstance(content[field], str):
            raise UserError(f"template {name}: {field} has to be a text, got {content[field]!r}")
    if not isinstance(content["system"], str | None):
        raise UserError(f"template {name}: system has to be a text or null, got {content['system']!r}")
    if not isinstance(content["begin"], str | None) or content["begin"] == "":
        raise UserError(f"template {name}: begin has to be a text, got {content['begin']!r}")
    for field, allowed in (("kind", KINDS), ("answer", ANSWERS), ("unreadable", UNREADABLE)):
        if content[field] not in allowed:
            raise UserError(f"template {name}: {field} is {content[field]!r}, not {' or '.join(allowed)}")
    if content["unreadable"] != "last" and content["kind"] != "exclusion":
        raise UserError(f"template {name}: unreadable is for kind exclusion, not {content['kind']}")
    shown = _fields(content["candidate"], _CANDIDATE_FIELDS, f"template {name}: candidate")
    if "text" not in shown or (content["answer"] == "label" and "label" not in shown):
        raise UserError(f"template {name}: candidate has to show {{text}}, and {{label}} where answers are labels")
    user = content["user"]
    if not isinstance(user, dict) or any(scenario not in user for scenario in SCENARIOS):
        raise UserError(f"template {name}: user needs one text for each of {', '.join(SCENARIOS)}")
    for key, text in user.items():
        if key not in SCENARIOS and key not in DATASETS:
            raise UserError(
                f"template {name}: user.{key} is neither a scenario nor a dataset ({', '.join((*SCENARIOS, *DATASETS))})"
            )
        shown = _fields(text, _USER_FIELDS, f"template {name}: user.{key}") if isinstance(text, str) else []
        if "context" not in shown or "candidates" not in shown[shown.index("context") :]:
            raise UserError(f"template {name}: user.{key} needs {{context}} and, after it, {{candidates}}")
        if shown.count("candidates") > 1:
            raise UserError(f"template {name}: user.{key} shows {{candidates}} twice")


def _fields(text: str, known: tuple[str, ...], where: str) -> list[str]:
    fields = list(pieces(text)[1::2])
    if unknown := [field for field in fields if field not in known]:
        raise UserError(f"{where} has an unknown field {{{unknown[0]}}}; it may show {{{'}, {'.join(known)}}}")
    return fields


def check_hash(template: Template, id: str, hash: str, where: str) -> None:
    """Raise UserError, with both hashes, where ``where`` (a file or a model) was made with another template."""
    if (template.id, template.hash) != (id, hash):
        raise UserError(
            f"{where} was made with template {id} ({hash}), but this run uses {template.id} ({template.hash}); "
            "prepare the data again or choose the same template"
        )
