"""What tokens cost: a YAML file ``{model: {input: dollars, output: dollars}}``, dollars a million tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from iranker_verl.aliases import check_aliases
from iranker_verl.errors import UserError, first_line


@dataclass(frozen=True)
class Price:
    """Dollars a million tokens, of prompts (``input``) and of answers (``output``)."""

    input: float
    output: float

    def dollars(self, prompt_tokens: float, new_tokens: float) -> float:
        """Return the price of these tokens, in dollars."""
        return (self.input * prompt_tokens + self.output * new_tokens) / 1e6


def read_price(path: Path, model: str) -> Price:
    """Return the price of ``model``. Raise UserError where the file is not as above, or does not name the model."""
    try:
        source = path.read_text(encoding="utf-8")
        check_aliases(source, str(path))
        content: Any = yaml.safe_load(source)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML ({first_line(error)})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: it needs `model: {{input: dollars, output: dollars}}`, dollars a million tokens")
    if model not in content:
        raise UserError(f"{path}: no price for {model!r}; it names {', '.join(map(str, content)) or 'nothing'}")
    own = content[model]
    if not isinstance(own, dict) or set(own) != {"input", "output"}:
        raise UserError(f"{path}: {model} needs exactly input and output, got {own!r}")
    for name, value in own.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value < 0:
            raise UserError(f"{path}: {model}.{name} is {value!r}, not dollars a million tokens")
    return Price(float(own["input"]), float(own["output"]))
