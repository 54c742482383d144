"""Prompt templates: data files in ``templates/``, rendered the same way in preparation, rollout, evaluation and serving.

A template file is YAML: ``id``; ``answer`` (``label`` or ``text``: how its prompt asks for the answer); ``candidate``
(one line a candidate, with ``{label}`` and ``{text}``); ``system`` (or null); and ``user``, one text a scenario, with
``{context}`` and then ``{candidates}``: context first, so that the steps of an episode share their longest prefix.

The hash covers the meaning (parsed content), not the file's comments. It travels with every row, checkpoint and result.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from iranker_verl.errors import UserError
from iranker_verl.ranking.elimination import Elimination
from iranker_verl.ranking.task import SCENARIOS
from reward_fns.answers import label

Message = dict[str, str]
_FIELD = re.compile(r"\{(\w+)\}")
_FIELDS = ("id", "answer", "candidate", "system", "user")


def _fill(text: str, /, **values: str) -> str:
    # One pass, so that braces inside a title or a passage are text and nothing else.
    return _FIELD.sub(lambda m: values.get(m.group(1), m.group(0)), text)


@dataclass(frozen=True)
class Template:
    """A parsed template file. ``hash`` is 16 hex digits of SHA-256 over its content."""

    id: str
    answer: str
    candidate: str
    system: str | None
    user: dict[str, str]
    hash: str

    def messages(self, state: Elimination) -> list[Message]:
        """The chat messages of an episode's present step."""
        lines = [_fill(self.candidate, label=label(i), text=c.text) for i, c in enumerate(state.pool)]
        user = _fill(
            self.user[state.task.scenario], context=state.task.context, candidates="\n".join(lines), n=str(len(lines))
        )
        head = [{"role": "system", "content": self.system}] if self.system else []
        return [*head, {"role": "user", "content": user}]

    def answer_for(self, state: Elimination, place: int) -> str:
        """The answer, in this template's form, that excludes the candidate at ``place`` (used to teach the format)."""
        return f"[{label(place)}]" if self.answer == "label" else state.pool[place].text


def available() -> list[str]:
    """Ids of the templates that come with the package."""
    folder = resources.files(__package__) / "templates"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


@cache
def load(name: str) -> Template:
    """A template by id, or from a ``.yaml`` file. UserError names the file and the field that is wrong."""
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


def parse(source: str, name: str) -> Template:
    """A template from YAML text; ``name`` is for error messages."""
    try:
        content: dict[str, Any] = yaml.safe_load(source)
    except yaml.YAMLError as error:
        raise UserError(f"template {name}: not valid YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise UserError(f"template {name}: it needs the fields {', '.join(_FIELDS)}, and is no mapping")
    if wrong := sorted(map(str, set(content) ^ set(_FIELDS))):
        what = "unknown" if wrong[0] not in _FIELDS else "missing"
        raise UserError(f"template {name}: field {wrong[0]} is {what}; it needs exactly {', '.join(_FIELDS)}")
    for field in ("id", "candidate"):
        if not isinstance(content[field], str):
            raise UserError(f"template {name}: {field} has to be a text, got {content[field]!r}")
    if not isinstance(content["system"], str | None):
        raise UserError(f"template {name}: system has to be a text or null, got {content['system']!r}")
    if content["answer"] not in ("label", "text"):
        raise UserError(f"template {name}: answer is {content['answer']!r}, not label or text")
    if "{text}" not in content["candidate"] or (content["answer"] == "label" and "{label}" not in content["candidate"]):
        raise UserError(f"template {name}: candidate has to show {{text}}, and {{label}} where answers are labels")
    if not isinstance(content["user"], dict) or set(content["user"]) != set(SCENARIOS):
        raise UserError(f"template {name}: user needs one text for each of {', '.join(SCENARIOS)}, and no other")
    for scenario in SCENARIOS:
        text = str(content["user"][scenario])
        if not 0 <= text.find("{context}") < text.find("{candidates}"):
            raise UserError(f"template {name}: user.{scenario} needs {{context}} and, after it, {{candidates}}")
    canonical = json.dumps(content, sort_keys=True, ensure_ascii=False).encode()
    return Template(**content, hash=hashlib.sha256(canonical).hexdigest()[:16])


def check_hash(template: Template, id: str, hash: str, where: str) -> None:
    """UserError, with both hashes, where ``where`` (a file or a model) was made with another template."""
    if (template.id, template.hash) != (id, hash):
        raise UserError(
            f"{where} was made with template {id} ({hash}), but this run uses {template.id} ({template.hash}); "
            "prepare the data again or choose the same template"
        )
