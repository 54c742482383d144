"""A model without weights: built by transformers on torch's meta device from a ``config.json``.

``models/`` has the shapes of Qwen2.5 and Qwen3 models, so that a recipe can be planned where the model is not. They restate
what the ``config.json`` of each repository says on the Hugging Face hub (Qwen/Qwen2.5-0.5B-Instruct, -1.5B-Instruct,
-3B-Instruct, -7B-Instruct, Qwen/Qwen3-4B); ``tests/plan`` compares the numbers of parameters with the published ones.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForTokenClassification

from iranker_verl.errors import UserError
from iranker_verl.files import read_json

MODELS = Path(__file__).with_name("models")
SUFFIXES = ("-Instruct", "-Instruct-2507", "-Base")
# Names of weights that verl 0.9.1 shards as groups of their own where embeddings are not tied (apply_fsdp2).
_WRAPPED = ("embed_tokens", "lm_head")


def find_config(path: str) -> dict[str, Any]:
    """Return the ``config.json`` of a model folder, or of one of :data:`MODELS` by the path's last name.

    Raise UserError where there is neither.
    """
    file = Path(path).expanduser() / "config.json"
    if not file.is_file():
        name = Path(path).name
        names = [name, *(name.removesuffix(suffix) for suffix in SUFFIXES)]
        found = [MODELS / f"{one}.json" for one in names if (MODELS / f"{one}.json").is_file()]
        if not found:
            known = ", ".join(sorted(one.stem for one in MODELS.glob("*.json")))
            raise UserError(
                f"actor_rollout_ref.model.path={path}: no config.json there, and no known shape of that name ({known}); "
                "give a folder with the model's config.json"
            )
        file = found[0]
    return read_json(file)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: of the whole model, of its largest layer, and of what is in no layer."""

    all: int
    layer: int
    root: int


@dataclass(frozen=True)
class Shape:
    """A model's shape.

    Attributes:
        config: its ``config.json``, as text.
        value: a critic: a value a token in place of the language model's head.
        lora_rank: rank of an adapter on every linear layer but the head; 0: all weights learn.
    """

    config: str
    value: bool = False
    lora_rank: int = 0

    @classmethod
    def of(cls, config: dict[str, Any], **options: Any) -> Shape:
        """Return the shape that a parsed ``config.json`` describes."""
        return cls(json.dumps(config, sort_keys=True), **options)

    def build(self, layers: int | None = None, dtype: torch.dtype = torch.float32, attention: str = "eager") -> Any:
        """Return the model on the meta device, of its own or of ``layers`` layers. Raise UserError where it cannot be built."""
        settings = json.loads(self.config)
        kind = settings.pop("model_type", None)
        try:
            config = AutoConfig.for_model(kind, **settings)
            if layers is not None:
                _set_layers(config, layers)
            if self.value:
                config.num_labels = 1
            made = AutoModelForTokenClassification if self.value else AutoModelForCausalLM
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = made.from_config(config, dtype=dtype, attn_implementation=attention)
                return _adapted(model, self.lora_rank) if self.lora_rank else model
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, AssertionError) as error:
            raise UserError(f"a model of type {kind!r} cannot be built from its config.json: {error}") from error

    @cached_property
    def _settings(self) -> Any:
        settings = json.loads(self.config)
        return AutoConfig.for_model(settings.pop("model_type"), **settings)

    @property
    def layers(self) -> int:
        """Return the number of layers."""
        return int(self._settings.num_hidden_layers)

    @property
    def hidden(self) -> int:
        """Return the width of a layer."""
        return int(self._settings.hidden_size)

    @property
    def vocabulary(self) -> int:
        """Return the size of the model's vocabulary."""
        return int(self._settings.vocab_size)

    @property
    def heads(self) -> int:
        """Return the number of attention heads."""
        return int(self._settings.num_attention_heads)

    @property
    def head_width(self) -> int:
        """Return the width of an attention head."""
        return int(getattr(self._settings, "head_dim", None) or self.hidden // self.heads)

    @property
    def cache_heads(self) -> int:
        """Return the number of heads of keys and values."""
        return int(getattr(self._settings, "num_key_value_heads", None) or self.heads)

    @property
    def tied(self) -> bool:
        """Return whether the head's weights are those of the embedding."""
        return bool(self._settings.tie_word_embeddings)

    @cached_property
    def parameters(self) -> Parameters:
        """Return the numbers of parameters; ``root`` is the largest group outside the layers that is gathered at once."""
        return _count(self, trainable=False)

    @cached_property
    def trainable(self) -> Parameters:
        """Return the numbers of parameters that learn."""
        return _count(self, trainable=True)


@lru_cache(maxsize=64)
def _count(shape: Shape, trainable: bool) -> Parameters:
    model = shape.build()
    classes = set(getattr(model, "_no_split_modules", None) or ())
    parameters = {id(p): p.numel() for p in model.parameters() if p.requires_grad or not trainable}
    total = sum(parameters.values())
    layers, separate = [], []
    for name, module in model.named_modules():
        size = sum(parameters.get(id(p), 0) for p in module.parameters())
        if type(module).__name__ in classes:
            layers.append(size)
        elif not shape.tied and name.rsplit(".", 1)[-1] in _WRAPPED:
            separate.append(size)
    rest = total - sum(layers) - sum(separate)
    return Parameters(total, max(layers, default=0), max(rest, *separate, 0) if separate else rest)


def _set_layers(config: Any, layers: int) -> None:
    """Set a config's number of layers. Lists with an entry a layer, e.g. ``layer_types``, are cut, or extended by their last entry."""
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and value and len(value) == config.num_hidden_layers:
            setattr(config, name, (value + value[-1:] * layers)[:layers])
    config.num_hidden_layers = layers


def _adapted(model: Any, rank: int) -> Any:
    """Return the model with an adapter on every linear layer but the head, as verl makes it with ``all-linear``."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, target_modules="all-linear", bias="none"))
