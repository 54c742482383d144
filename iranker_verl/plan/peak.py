"""Bytes that a pass through a model keeps, counted while it runs on torch's meta device, where no tensor has any memory.

Every operation of forward and backward is dispatched as on a device; storages count from when they are made to when they are
freed. Passes are run with two and with three layers: bytes grow by the same number with each further one.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface

from iranker_verl.errors import UserError
from iranker_verl.plan.shape import Shape

ATTENTION = "iranker_plan"


class Peak(TorchDispatchMode):
    """Bytes of the storages that are made within, that are alive (``live``), and the most that were at once (``peak``)."""

    def __init__(self, *known: torch.Tensor) -> None:
        """Begin to count. What is in ``known``, e.g. weights, does not count."""
        super().__init__()
        self.live = self.peak = 0
        self._seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count what it makes."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if (
                isinstance(tensor, torch.Tensor)
                and (key := (storage := tensor.untyped_storage())._cdata) not in self._seen
            ):
                self._seen.add(key)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, key, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return out

    def _free(self, key: int, size: int) -> None:
        self.live -= size
        self._seen.discard(key)


class _Attention(torch.autograd.Function):
    """What flash kernels keep for backward: queries, keys, values, output, and a float32 a row and head."""

    @staticmethod
    def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
        query = inputs[0]
        out = torch.empty_like(query)
        ctx.save_for_backward(*inputs, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        inputs = ctx.saved_tensors[:-2]
        return *(torch.empty_like(one) for one in inputs[:3]), *(None for _ in inputs[3:])


def _attend(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any, **_: Any
) -> tuple[torch.Tensor, None]:
    """Stand in for attention: torch's own repeats keys and values, and where rows are padded it has a bias of the mask."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (one.repeat_interleave(repeats, 1) for one in (key, value))
    rows, tokens = query.shape[0], query.shape[2]
    bias = (query.new_empty(rows, 1, tokens, tokens),) if rows > 1 else ()
    return _Attention.apply(query, key, value, *bias).transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attend)


@dataclass(frozen=True)
class Batch:
    """A micro-batch: packed (one row of ``length`` tokens) or padded, and the tokens whose log-probs are read."""

    rows: int
    length: int
    answers: int


@dataclass(frozen=True)
class Pass:
    """Bytes of a pass through a model, without weights and without gradients of weights.

    Attributes:
        kept: what the layers' forward leaves for backward.
        layers: the most that is alive in the layers, ``kept`` included.
        head: what logits and log-probs of the answers take, forward and backward.
    """

    kept: int
    layers: int
    head: int

    @property
    def peak(self) -> int:
        """Return the most that is alive at once: log-probs exist together with ``kept``, and are freed before the backward pass of the layers."""
        return max(self.kept + self.head, self.layers)


@lru_cache(maxsize=256)
def count(
    shape: Shape,
    batch: Batch,
    dtype: torch.dtype,
    *,
    learns: bool,
    checkpointing: bool = False,
    entropy: bool = False,
    scaled: bool = False,
) -> Pass:
    """Return the bytes of a pass of ``batch`` through a model of ``shape``.

    Args:
        shape: the model.
        batch: the micro-batch.
        dtype: what it computes in.
        learns: forward and backward, otherwise forward alone, without gradients.
        checkpointing: layers are computed again for backward.
        entropy: the entropy of the answers is computed as well.
        scaled: logits are divided by a temperature.
    """
    few, more = (_layers(shape, batch, dtype, layers, learns, checkpointing) for layers in (2, 3))
    kept, peak = (a + (shape.layers - 2) * (b - a) for a, b in zip(few, more, strict=True))
    head = 0 if shape.value else _head(shape, batch.answers, dtype, learns, entropy, scaled)
    return Pass(kept=kept, layers=peak, head=head)


def _layers(
    shape: Shape, batch: Batch, dtype: torch.dtype, layers: int, learns: bool, checkpointing: bool
) -> tuple[int, int]:
    """Return bytes alive after forward, and at most, of a model with this number of layers, without its head."""
    model = shape.build(layers, dtype, ATTENTION)
    body = _body(model)
    if checkpointing and learns:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if shape.lora_rank:
            model.enable_input_require_grads()
    model.train(learns)
    _drop_gradients(model)
    ids = torch.zeros(batch.rows, batch.length, dtype=torch.long, device="meta")
    counted = Peak(*model.parameters(), *model.buffers())
    try:
        with counted, torch.set_grad_enabled(learns):
            hidden = body(input_ids=ids, use_cache=False).last_hidden_state
            kept = counted.live if learns else 0
            if learns:
                hidden.backward(torch.empty_like(hidden))
    except RuntimeError as error:  # e.g. its code reads numbers, which the meta device does not have
        kind = model.config.model_type
        raise UserError(
            f"a pass through a model of type {kind!r} cannot be counted without weights: {error}"
        ) from error
    return kept, counted.peak


def _head(shape: Shape, answers: int, dtype: torch.dtype, learns: bool, entropy: bool, scaled: bool) -> int:
    """Return the bytes of logits, log-probs and entropy of ``answers`` tokens, as ``training.answer_engine`` computes them."""
    weight = torch.empty(
        shape.vocabulary, shape.hidden, dtype=dtype, device="meta", requires_grad=learns and not shape.lora_rank
    )
    hidden = torch.empty(1, answers, shape.hidden, dtype=dtype, device="meta", requires_grad=learns)
    for one in (weight, hidden):
        if one.requires_grad:
            one.register_post_accumulate_grad_hook(_forget)
    labels = torch.zeros(answers, 1, dtype=torch.long, device="meta")
    temperature = torch.ones(answers, 1, device="meta")
    counted = Peak(weight, hidden, labels, temperature)
    with counted, torch.set_grad_enabled(learns):
        kept = torch.nn.functional.linear(hidden, weight)
        logits = kept[0].float()
        log_probs = torch.log_softmax(logits / temperature if scaled else logits, dim=-1)
        loss = log_probs.gather(1, labels).sum()
        if entropy:
            loss = loss + (log_probs.exp() * log_probs).sum(-1).mean()
        del log_probs, logits, kept  # verl's engine hands on the log-probs of the labels alone
        if learns:
            loss.backward()
    return counted.peak


def _body(model: Any) -> Any:
    """Return what is below the head, with an adapter or without."""
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(model, model.base_model_prefix)


def _drop_gradients(model: Any) -> None:
    """Forget each weight's gradient when it is complete, as FSDP does after it has reduced it."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(_forget)


def _forget(parameter: torch.Tensor) -> None:
    parameter.grad = None
