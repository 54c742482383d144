"""Make a ranker of a small language model: what it knows of titles, said by the labels of a list.

A small model learns by language modelling, in a minute, which title suits a history. To say so by the label of a candidate takes
heads that join a label to its line, and one that looks up the line whose title fits: in-context learning, which appears late
and suddenly (Olsson et al., In-context learning and induction heads, arXiv 2209.11895). On real data, where every answer is
uncertain, it had hardly begun after 14 minutes. So these heads are written down here, and training continues from them:

1. *line*: in the first layer, every token attends to the nearest label before it, at any distance, and copies its code;
2. *match*: in two more layers, the query is the language model's prediction, the key is a token's own embedding, both in the
   leading directions of the titles' embeddings, so that a score is nearly the title's logit; the value is the code of the line,
   which is written where the output reads labels.

The width is the language model's and three channels: a label's code (read by the output), the code of a token's line, and a
token's embedding in the leading directions. The language model computes nearly what it did before.

:func:`copy_values`, :func:`look_back` and :func:`induce` are starts for a model that is not widened (``benchmarks/reasoning.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import nnls
from transformers import Qwen2ForCausalLM

HEAD = 32  # dimensions of a head, and of each channel
CHANNELS = 3 * HEAD
READING_LAYERS = 2
LABEL_LENGTH = 3.0  # of a label's code, in mean lengths of an embedding
CODE_LENGTH = 0.2  # of a token's code
# The score of the nearest label: FLOOR at a distance of REACH tokens, and SLOPE more for each e-fold that it is nearer.
FLOOR, SLOPE, REACH = 20.0, 20.0, 400
COPY_SCALE = 0.25
LOOK_SCALE = 6.5
INDUCE_SCALE = 4.0
INDUCE_WRITE = 0.75
MATCH = 25.0  # how sharply the match looks
IN_LINE = 6.0  # how much more it looks at lines than at the history
WRITE = 10.0  # of a line that it looks at alone, in lengths of its code


def widen(
    language: Qwen2ForCausalLM, model: Qwen2ForCausalLM, labels: Sequence[int], titles: Sequence[int]
) -> Qwen2ForCausalLM:
    """Write ``language`` and the heads that read its predictions into ``model``; return ``model``.

    ``model`` is :data:`CHANNELS` wider and :data:`READING_LAYERS` deeper, with heads of :data:`HEAD` dimensions, each with its
    own keys. ``labels`` are the tokens of at most :data:`HEAD` labels. ``titles`` are the tokens whose embeddings' leading
    directions are used; all tokens' where they are too few.
    """
    width = language.config.hidden_size
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.fill_(1.0)
            elif parameter.ndim == 1 or "o_proj" in name or "down_proj" in name:  # what is added writes nothing yet
                parameter.zero_()
            else:
                parameter.normal_(0.0, 0.01)
        directions, strength = _embed(language, model, labels, titles)
        _copy(language, model)
        _join_lines(model, width, labels)
        for layer in model.model.layers[-READING_LAYERS:]:
            _match(layer, width, directions, strength)
    return model


def _embed(
    language: Qwen2ForCausalLM, model: Qwen2ForCausalLM, labels: Sequence[int], titles: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the embeddings; return the leading directions, shape (HEAD, width), and their relative strengths."""
    known, wide = language.model.embed_tokens.weight, model.model.embed_tokens.weight
    width = known.shape[1]
    length = known.norm(dim=1).mean()
    shown = known[list(titles)] if len(titles) >= 2 * HEAD else known
    mean = shown.mean(0)
    _, strength, directions = torch.linalg.svd(shown - mean, full_matrices=False)
    codes = (known - mean) @ directions[:HEAD].T
    wide.zero_()
    wide[:, :width] = known
    for place, token in enumerate(labels):
        wide[token, width + place] = LABEL_LENGTH * length
    wide[:, width + 2 * HEAD :] = CODE_LENGTH * length * codes / codes.norm(dim=1).mean()
    return directions[:HEAD], strength[:HEAD] / strength[0]


def _copy(language: Qwen2ForCausalLM, model: Qwen2ForCausalLM) -> None:
    """Copy the language model into the first dimensions, heads and layers; the channels stay out of what it reads."""
    width = language.config.hidden_size
    # A norm divides by the length over all dimensions; the channels are empty or short.
    shrink = (width / model.config.hidden_size) ** 0.5

    def norm(target: Any, source: Any) -> None:
        target.weight[:width] = source.weight * shrink

    norm(model.model.norm, language.model.norm)
    layer: Any
    known: Any
    for layer, known in zip(model.model.layers, language.model.layers, strict=False):
        norm(layer.input_layernorm, known.input_layernorm)
        norm(layer.post_attention_layernorm, known.post_attention_layernorm)
        for name in ("q_proj", "k_proj", "v_proj"):
            wide, narrow = getattr(layer.self_attn, name), getattr(known.self_attn, name)
            wide.weight[:width] = 0.0
            wide.weight[:width, :width] = narrow.weight
            wide.bias[:width] = narrow.bias
        layer.self_attn.o_proj.weight[:width, :width] = known.self_attn.o_proj.weight
        for name in ("gate_proj", "up_proj"):
            wide = getattr(layer.mlp, name).weight
            wide[:, width:] = 0.0
            wide[:, :width] = getattr(known.mlp, name).weight
        layer.mlp.down_proj.weight[:width] = known.mlp.down_proj.weight


def distance_weights(frequencies: torch.Tensor) -> torch.Tensor:
    """Return weights w >= 0 of the rotary frequencies θ, such that Σ w cos(θΔ) falls with the logarithm of the distance Δ."""
    distances = np.unique(np.geomspace(1, REACH + 1, 200).round()) - 1
    wanted = FLOOR + SLOPE * np.log((REACH + 1) / (distances + 1))
    found, _ = nnls(np.cos(np.outer(distances, frequencies.double().numpy())), wanted)
    return torch.tensor(found, dtype=torch.float32)


def _join_lines(model: Qwen2ForCausalLM, width: int, labels: Sequence[int]) -> None:
    """Let the first free head of the first layer copy the code of the nearest label before a token into the line's channel.

    Only labels have keys, in the cosine part of each rotary frequency θ, and all queries are equal, so the score of a label Δ
    tokens back is Σ w cos(θΔ).
    """
    first: Any = model.model.layers[0]
    attention, rows = first.self_attn, slice(width, width + HEAD)
    labelled = model.model.embed_tokens.weight[list(labels)]
    code = labelled[0, width]
    # What a label's code is after the norm, whose weights are one in the channels.
    seen = code / labelled.pow(2).mean(dim=1).sqrt().mean()
    part = (distance_weights(model.model.rotary_emb.inv_freq.float().cpu()) * HEAD**0.5).sqrt()
    zeros = torch.zeros_like(part)
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[rows] = 0.0
    attention.q_proj.bias[rows] = torch.cat([part, zeros])
    attention.k_proj.weight[rows, width : width + HEAD] = torch.cat([part, zeros])[:, None] / seen
    attention.v_proj.weight[rows, width : width + HEAD] = torch.eye(HEAD) / seen
    attention.o_proj.weight[width + HEAD : width + 2 * HEAD, rows] = torch.eye(HEAD) * code / LABEL_LENGTH


def _match(layer: Any, width: int, directions: torch.Tensor, strength: torch.Tensor) -> None:
    """Let two heads look up the lines whose titles are predicted, and write their codes where the output reads labels.

    A head's frequencies with periods of more than a list's length keep a product whatever the distance: its slow dimensions.
    The heads share the directions between them, the strongest to both.
    """
    attention = layer.self_attn
    half = HEAD // 2
    *slow, inside = (*range(half - 10, half), *range(HEAD - 10, HEAD))
    line = slice(width + HEAD, width + 2 * HEAD)
    for head, first in enumerate((0, HEAD - len(slow))):
        rows, taken = slice(head * HEAD, (head + 1) * HEAD), slice(first, first + len(slow))
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0.0
        places = head * HEAD + torch.tensor(slow)
        attention.q_proj.weight[places, :width] = MATCH * directions[taken] * strength[taken, None]
        attention.k_proj.weight[places, width + 2 * HEAD + torch.arange(first, first + len(slow))] = 1.0
        attention.q_proj.bias[head * HEAD + inside] = IN_LINE
        attention.k_proj.weight[head * HEAD + inside, line] = 1.0
        attention.v_proj.weight[rows, line] = torch.eye(HEAD)
        attention.o_proj.weight[width : width + HEAD, rows] = WRITE * torch.eye(HEAD)


@torch.no_grad()
def copy_values(model: Qwen2ForCausalLM) -> None:
    """Let every head write what it attends to: outputs are the transposes of values, whose rows are orthogonal.

    What a head of random values and outputs writes says nothing until both are learned. A head that copies is half of what
    matching by context takes (Elhage et al., A mathematical framework for transformer circuits, 2021); the other half, queries
    equal to keys, is :func:`iranker_verl.toy.topics.initialise`'s.
    """
    config = model.config
    shared = config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
    for layer in model.model.layers:
        attention = layer.self_attn
        rows, width = attention.v_proj.weight.shape
        values = COPY_SCALE * torch.linalg.qr(torch.randn(width, rows))[0].T
        attention.v_proj.weight.copy_(values)
        heads = values.view(config.num_key_value_heads, -1, width).repeat_interleave(shared, 0)
        attention.o_proj.weight.copy_(heads.reshape(-1, width).T)


@torch.no_grad()
def look_back(model: Qwen2ForCausalLM, offsets: Sequence[int]) -> None:
    """Let heads of the first layer attend to the token ``offsets`` places back, one head an offset, for any tokens.

    A model that names candidates by their labels has to join a label to the title that follows it. Heads that look at what
    was before are what in-context learning waits for, and their late appearance is its phase change (Olsson et al.,
    In-context learning and induction heads, arXiv 2209.11895). With rotary embeddings a head does so by its biases alone: keys
    are ``(s, 0)`` and queries ``s (cos θδ, -sin θδ)`` for each frequency θ, so the score of the token Δ places back is
    ``s² Σ cos θ(Δ - δ)``, largest at ``Δ = δ``. The heads are those of the first group of keys.
    """
    config, attention = model.config, model.model.layers[0].self_attn
    size = config.hidden_size // config.num_attention_heads
    shared = config.num_attention_heads // (config.num_key_value_heads or config.num_attention_heads)
    if len(offsets) > shared:
        raise ValueError(f"{len(offsets)} offsets, but {shared} heads share a key")
    frequencies = model.model.rotary_emb.inv_freq.float()
    attention.k_proj.weight[:size] = 0.0
    attention.k_proj.bias[:size] = LOOK_SCALE * torch.cat([torch.ones_like(frequencies), torch.zeros_like(frequencies)])
    for head, offset in enumerate(offsets):
        rows = slice(head * size, (head + 1) * size)
        angles = frequencies * offset
        attention.q_proj.weight[rows] = 0.0
        attention.q_proj.bias[rows] = LOOK_SCALE * torch.cat([angles.cos(), -angles.sin()])


@torch.no_grad()
def induce(model: Qwen2ForCausalLM) -> None:
    """Let heads of the second layer find the token after an earlier occurrence, once :func:`look_back` finds what was before.

    Induction heads (Olsson et al., arXiv 2209.11895), which may appear thousands of steps late, or not at all. The looking heads of
    the first layer, which share their values, write the tokens that they look at into spaces of their own. In the second layer the
    keys of the first group read the space of the first looking head; the group's first head asks for its own token there, so it finds
    what followed that token before, and the next head for the token before its own.
    """
    config = model.config
    width, heads = config.hidden_size, config.num_attention_heads
    size, shared = width // heads, heads // (config.num_key_value_heads or heads)
    spaces = torch.linalg.qr(torch.randn(width, (1 + shared) * size))[0].T.reshape(1 + shared, size, width)
    own, before = spaces[0], spaces[1]
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    model.model.layers[0].mlp.down_proj.weight.zero_()  # random, it writes as much as a token's embedding
    first.v_proj.weight[:size] = COPY_SCALE * own
    for head in range(shared):
        first.o_proj.weight[:, head * size : (head + 1) * size] = INDUCE_WRITE * spaces[1 + head].T
    # dimensions whose rotation over a prompt is small, so that a product says the same at any distance
    half = size // 2
    slow = torch.tensor([*range(half // 2, half), *range(half + half // 2, size)])
    second.k_proj.weight[:size] = 0.0
    second.k_proj.weight[slow] = INDUCE_SCALE * before[: len(slow)]
    for head, asked in enumerate((own, before)[:shared]):
        second.q_proj.weight[head * size : (head + 1) * size] = 0.0
        second.q_proj.weight[head * size + slow] = INDUCE_SCALE * asked[: len(slow)]
