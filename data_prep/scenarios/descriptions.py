"""What people know of LLMs: a JSON file of their descriptions and prices, beside what they scored.

``{name: {description, price}}``, or ``{name: {feature, input_price, output_price, model}}`` as GraphRouter and LLMRouter have
it, whose prices are dollars per million tokens; ``model`` is another name of the LLM.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.readers.lines import NAN, optional_number
from data_prep.readers.opened import MAX_TEXT, check_regular
from data_prep.readers.text import shown
from iranker_verl.errors import NOT_JSON, UserError
from iranker_verl.ranking.text import one_line

DESCRIPTIONS = ("llm_descriptions.json", "LLM_Descriptions.json")


@dataclass(frozen=True)
class Described:
    """What is known of an LLM. ``input_price`` and ``output_price`` are dollars per million tokens, NaN if unknown."""

    text: str = ""
    price: str | None = None
    input_price: float = NAN
    output_price: float = NAN

    @property
    def listed(self) -> float:
        """One number for what the LLM charges, where only the order of LLMs matters."""
        return self.input_price + self.output_price


def descriptions(file: Path | None) -> dict[str, Described]:
    """Return the LLMs that a JSON file describes, by all their names. Raise UserError for a file of another form."""
    if file is None:
        return {}
    check_regular(file)
    if file.stat().st_size > MAX_TEXT:
        raise UserError(f"{file}: more than {MAX_TEXT >> 20} MB of descriptions; is it another file?")
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (*NOT_JSON, OSError) as error:
        raise UserError(f"{file}: not a readable JSON file ({error}); correct or remove it") from error
    if not isinstance(content, dict) or not content:
        raise UserError(f"{file}: not an object {{name: {{description, price}}}}; correct or remove it")
    result: dict[str, Described] = {}
    for row, (name, entry) in enumerate(content.items(), 1):
        if not isinstance(entry, dict):
            raise UserError(
                f"{file}: {name!r} is {shown(str(entry))}, not an object {{description, price}}; correct it"
            )
        result[name.strip()] = _described(entry, file, row)
    for name, entry in content.items():
        result.setdefault(str(entry.get("model", name)).strip(), result[name.strip()])
    return result


def _described(entry: Mapping[str, Any], file: Path, row: int) -> Described:
    text = one_line(str(entry.get("description") or entry.get("feature") or ""))
    paid = [
        optional_number(entry.get(f"{way}_price"), file, row, f"{way}_price", least=0) for way in ("input", "output")
    ]
    price = entry.get("price")
    if price is not None:
        price = str(price)
    elif not any(map(math.isnan, paid)):
        price = f"${entry['input_price']} in, ${entry['output_price']} out per 1M tokens"
    return Described(text, price, *paid)


def nearest(names: Collection[str], path: Path, files: Collection[Path]) -> Path | None:
    """Return the file with one of these names that is beside ``path``, or else the nearest one among ``files``."""
    beside = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if beside:
        return beside[0]
    found = [file for file in sorted(files) if file.name in names]
    return max(found, key=lambda file: len(Path(os.path.commonpath([path, file])).parts), default=None)
