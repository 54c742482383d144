"""Attention within the rows of a packed micro-batch: transformers' ``attn_implementation`` named ``packed``.

verl packs the rows of a micro-batch into one, (1, tokens), where position ids begin at 0 with every row
(``model.use_remove_padding``). A token attends to the earlier ones of its own row. On a GPU, in half precision, torch's own
variable-length flash attention computes it, so that the package flash-attn is not needed; elsewhere the rows are padded for the
attention alone. Rows that are not packed get ``sdpa``.

Importing this module registers the implementation.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

try:
    from torch.nn.attention.varlen import varlen_attn

    _VARLEN: Any = set(inspect.signature(varlen_attn).parameters)
    # torch 2.10 takes is_causal; later versions take window_size, and grouped key and value heads
    _CAUSAL: Any = {"window_size": (-1, 0)} if "window_size" in _VARLEN else {"is_causal": True}
    _GROUPED: Any = {"enable_gqa": True} if "enable_gqa" in _VARLEN else {}
except ImportError:  # before torch 2.10
    varlen_attn = None  # type: ignore[assignment]

NAME = "packed"


class Rows(NamedTuple):
    """Where the rows of a packed micro-batch are."""

    offsets: torch.Tensor  # (rows + 1,), int32: first token of each row, and the number of tokens
    longest: int  # tokens
    row: torch.Tensor  # (tokens,): the row of each token
    column: torch.Tensor  # (tokens,): its position in the row


@lru_cache(maxsize=1)  # of the tensor itself, which all layers of a forward pass share
def rows_of(position_ids: torch.Tensor) -> Rows | None:
    """Return the rows of packed ``position_ids``, (1, tokens), which begin with every 0; None where there is one row."""
    positions = position_ids[0]
    starts = (positions == 0).nonzero()[:, 0]
    if len(starts) < 2:
        return None
    offsets = torch.cat([starts, starts.new_tensor([len(positions)])])
    lengths = offsets.diff()
    row = torch.repeat_interleave(torch.arange(len(lengths), device=positions.device), lengths)
    return Rows(offsets.int(), int(lengths.max()), row, positions)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return causal attention within rows, (batch, tokens, heads, dimensions).

    ``query``: (batch, heads, tokens, dimensions); ``key`` and ``value`` may have fewer heads. ``kwargs`` has ``position_ids``.
    Raise NotImplementedError for packed rows of a model with a sliding window.
    """
    position_ids: Any = kwargs.get("position_ids")
    packed = attention_mask is None and len(query) == 1 and position_ids is not None
    rows = rows_of(position_ids) if packed and position_ids.shape[-1] == query.shape[2] else None
    if rows is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **kwargs)
    if kwargs.get("sliding_window") is not None:
        raise NotImplementedError("packed rows of a model with a sliding window; set use_remove_padding=false")
    if varlen_attn is not None and not dropout and _flash_takes(query):
        if not _GROUPED:
            key, value = (repeat_kv(x, query.shape[1] // key.shape[1]) for x in (key, value))
        flat = [x[0].transpose(0, 1) for x in (query, key, value)]  # (tokens, heads, dimensions)
        ends: Any = (rows.offsets, rows.offsets, rows.longest, rows.longest)
        attend: Any = varlen_attn
        return attend(*flat, *ends, scale=scaling, **_CAUSAL, **_GROUPED)[None], None
    shape = (int(rows.row[-1]) + 1, rows.longest)
    # padding comes after a row's tokens, so the causal mask keeps it out
    queries, keys, values = (
        x.new_zeros(*shape, *x.shape[1::2]).index_put((rows.row, rows.column), x[0].transpose(0, 1)).transpose(1, 2)
        for x in (query, key, value)
    )
    output, _ = sdpa_attention_forward(module, queries, keys, values, None, dropout, scaling)
    return output[rows.row, rows.column][None], None


def _flash_takes(query: torch.Tensor) -> bool:
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def _mask(*args: Any, attention_mask: torch.Tensor | None = None, **kwargs: Any) -> torch.Tensor | None:
    """Return sdpa's mask of padded rows; packed rows need none, (tokens, tokens), as the attention keeps them apart."""
    of: Any = sdpa_mask
    return None if attention_mask is None else of(*args, attention_mask=attention_mask, **kwargs)


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _mask)
