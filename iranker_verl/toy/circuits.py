"""Make a ranker of a small language model: what it knows of titles, said by the labels of a list.

A small model learns by language modelling, in a minute, which title suits a history. To say so by the label of a candidate takes
heads that join a label to its line, and one that looks up the line whose title fits: in-context learning, which appears late
and suddenly (Olsson et al., In-context learning and induction heads, arXiv 2209.11895). On real data, where every answer is
uncertain, it had hardly begun after 14 minutes. So these heads are written down here, and training continues from them:

1. *line*: in the first layer, every token attends to the nearest label or end of a line before it, at any distance, and copies
   its code, which is none for an end;
2. *amplify*: units of the first layer multiply that code with the token's own, so that only titles in lines have long ones;
3. *match*: in two more layers, the query is the language model's prediction, the key is a title's code, both in the leading
   directions of the titles' embeddings, so that a score is nearly the title's logit; the value is the code of the line, which is
   written where the output reads labels;
4. *question*: heads beside the first match copy the last tokens of the prompt, where the question differs from others;
5. *gate*: units of the last layer take away what was written, or more of it, as far as the question says so: a question for the
   worst has to say the opposite of a question for the best.

The width is the language model's and four channels: a label's code (read by the output), the code of a token's line, a title's
embedding in the leading directions, and the question. The language model computes nearly what it did before.

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
CHANNELS = 4 * HEAD
READING_LAYERS = 2
# Lengths of codes in mean lengths of an embedding: a label's, an end of line's, and a title's outside of a line.
LABEL_LENGTH, END_LENGTH, CODE_LENGTH = 3.0, 0.3, 0.2
# The score of the nearest label: FLOOR at a distance of REACH tokens, and SLOPE more for each e-fold that it is nearer.
FLOOR, SLOPE, REACH = 20.0, 20.0, 400
AMPLIFY = 1.0  # how much longer a title's code is in a line
MATCH = 1.6  # how sharply the match looks
WRITE = 3.5  # of the line that is looked at
GATE = 0.5  # of what was written, that a unit takes away
OPEN = 8.0  # a gate at the question for the worse
ABOVE = 10.0  # of labels' logits over the titles', at an answer
QUESTION = 1.5  # of a token that is copied
LAST = range(
    4, 9
)  # how far before the answer the last words of a question are; a chat template's tokens are between them
COPY_SCALE = 0.25
LOOK_SCALE = 6.5
INDUCE_SCALE = 4.0
INDUCE_WRITE = 0.75


def widen(
    language: Qwen2ForCausalLM, model: Qwen2ForCausalLM, labels: Sequence[int], end: int, titles: Sequence[int]
) -> Qwen2ForCausalLM:
    """Write ``language`` and the heads that read its predictions into ``model``; return ``model``.

    ``model`` is :data:`CHANNELS` wider and :data:`READING_LAYERS` deeper, with heads of :data:`HEAD` dimensions, each with its
    own keys, and :data:`HEAD` more units. ``labels`` are the tokens of fewer than :data:`HEAD` labels, ``end`` is the newline's.
    ``titles`` are the tokens that are looked up; all tokens where they are too few.
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
        length = float(language.model.embed_tokens.weight.norm(dim=1).mean())
        directions, scale = _embed(language, model, labels, end, titles, length)
        _copy(language, model)
        _join_lines(model, width, labels, end)
        _amplify(model.model.layers[0], width, language.config.intermediate_size)
        for layer in model.model.layers[-READING_LAYERS:]:
            _match(layer, width, directions, MATCH * length / scale, WRITE * length)
        _read_question(model, model.model.layers[-READING_LAYERS], width, QUESTION * length)
        _gate(model.model.layers[-1], width)
    return model


def _embed(
    language: Qwen2ForCausalLM,
    model: Qwen2ForCausalLM,
    labels: Sequence[int],
    end: int,
    titles: Sequence[int],
    length: float,
) -> tuple[torch.Tensor, float]:
    """Write the embeddings; return the leading directions, shape (HEAD, width), and the scale of titles' codes."""
    known, wide = language.model.embed_tokens.weight, model.model.embed_tokens.weight
    width = known.shape[1]
    shown = list(titles) if len(titles) >= 2 * HEAD else list(range(len(known)))
    read = known[shown] * language.model.norm.weight  # as the output reads them
    read -= read.mean(0)
    directions = torch.linalg.svd(read, full_matrices=False)[2][:HEAD]
    codes = read @ directions.T
    scale = CODE_LENGTH * length / float(codes.norm(dim=1).mean())
    wide.zero_()
    wide[:, :width] = known
    wide[shown, width + 2 * HEAD : width + 3 * HEAD] = scale * codes
    wide[list(labels)] = 0.0
    wide[list(labels), :width] = known[list(labels)].mean(0)  # the output tells them apart by their codes alone
    wide[list(labels), width + torch.arange(len(labels))] = LABEL_LENGTH * length
    wide[end, width + len(labels)] = END_LENGTH * length
    return directions, scale


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
        units = language.config.intermediate_size
        for name in ("gate_proj", "up_proj"):
            wide = getattr(layer.mlp, name).weight
            wide[:units] = 0.0
            wide[:units, :width] = getattr(known.mlp, name).weight
        layer.mlp.down_proj.weight[:width, :units] = known.mlp.down_proj.weight


def _clear(attention: Any, rows: slice) -> None:
    """Let queries, keys and values of a head depend on nothing."""
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[rows] = 0.0


def _rotated(frequencies: torch.Tensor, offset: int) -> torch.Tensor:
    """Return the bias of queries that look ``offset`` tokens back, at keys with the bias of 0 (:func:`look_back`)."""
    angles = frequencies * offset
    return LOOK_SCALE * torch.cat([angles.cos(), -angles.sin()])


def distance_weights(frequencies: torch.Tensor) -> torch.Tensor:
    """Return weights w >= 0 of the rotary frequencies θ, such that Σ w cos(θΔ) falls with the logarithm of the distance Δ."""
    distances = np.unique(np.geomspace(1, REACH + 1, 200).round()) - 1
    wanted = FLOOR + SLOPE * np.log((REACH + 1) / (distances + 1))
    found, _ = nnls(np.cos(np.outer(distances, frequencies.double().numpy())), wanted)
    return torch.tensor(found, dtype=torch.float32)


def _join_lines(model: Qwen2ForCausalLM, width: int, labels: Sequence[int], end: int) -> None:
    """Let the first free head of the first layer copy the code of the nearest label before a token into the line's channel.

    Only labels and ends of lines have keys, in the cosine part of each rotary frequency θ, and all queries are equal, so the
    score of a label Δ tokens back is Σ w cos(θΔ). An end has no value.
    """
    first: Any = model.model.layers[0]
    attention, rows = first.self_attn, slice(width, width + HEAD)

    def seen(tokens: Sequence[int], place: int) -> torch.Tensor:
        """Return what a code is after the norm, whose weights are one in the channels."""
        shown = model.model.embed_tokens.weight[list(tokens)]
        return shown[0, place] / shown.pow(2).mean(dim=1).sqrt().mean()

    last = width + len(labels)
    code, ended = seen(labels, width), seen([end], last)
    length = model.model.embed_tokens.weight[labels[0], width] / LABEL_LENGTH
    part = (distance_weights(model.model.rotary_emb.inv_freq.float().cpu()) * HEAD**0.5).sqrt()
    cosines = torch.cat([part, torch.zeros_like(part)])
    _clear(attention, rows)
    attention.q_proj.bias[rows] = cosines
    attention.k_proj.weight[rows, width:last] = cosines[:, None] / code
    attention.k_proj.weight[rows, last] = cosines / ended
    attention.v_proj.weight[rows, width : width + HEAD] = torch.eye(HEAD) / code
    attention.v_proj.weight[rows, last] = 0.0
    attention.o_proj.weight[width + HEAD : width + 2 * HEAD, rows] = torch.eye(HEAD) * length


def _amplify(layer: Any, width: int, units: int) -> None:
    """Let units of the first layer repeat a token's code, longer, if it stands in a line."""
    new, code = slice(units, units + HEAD), slice(width + 2 * HEAD, width + 3 * HEAD)
    for projection in (layer.mlp.gate_proj, layer.mlp.up_proj):
        projection.weight[new] = 0.0
    layer.mlp.gate_proj.weight[new, width + HEAD : width + 2 * HEAD] = 1.0
    layer.mlp.up_proj.weight[new, code] = torch.eye(HEAD)
    layer.mlp.down_proj.weight[code, new] = AMPLIFY * torch.eye(HEAD)


def _match(layer: Any, width: int, directions: torch.Tensor, sharpness: float, written: float) -> None:
    """Let two heads look up the lines whose titles are predicted, and write their codes where the output reads labels.

    A head's frequencies with periods of more than a list's length keep a product whatever the distance: its slow dimensions.
    The heads share the directions between them, the strongest in the first.
    """
    attention, half = layer.self_attn, HEAD // 2
    slow = torch.tensor([*range(half - 10, half), *range(HEAD - 10, HEAD)])
    line = slice(width + HEAD, width + 2 * HEAD)
    for head, first in enumerate((0, HEAD - len(slow))):
        rows, taken = slice(head * HEAD, (head + 1) * HEAD), first + torch.arange(len(slow))
        _clear(attention, rows)
        attention.q_proj.weight[head * HEAD + slow, :width] = sharpness**0.5 * directions[taken]
        attention.k_proj.weight[head * HEAD + slow, width + 2 * HEAD + taken] = sharpness**0.5
        attention.v_proj.weight[rows, line] = torch.eye(HEAD)
        attention.o_proj.weight[width : width + HEAD, rows] = written * torch.eye(HEAD)


def _read_question(model: Qwen2ForCausalLM, layer: Any, width: int, written: float) -> None:
    """Let the heads after the two of the match copy the tokens at :data:`LAST`, each in other random directions."""
    attention, frequencies = layer.self_attn, model.model.rotary_emb.inv_freq.float().cpu()
    for head, offset in enumerate(LAST, start=2):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        _clear(attention, rows)
        attention.k_proj.bias[rows] = _rotated(frequencies, 0)
        attention.q_proj.bias[rows] = _rotated(frequencies, offset)
        attention.v_proj.weight[rows, :width] = torch.randn(HEAD, width) / width**0.5
        attention.o_proj.weight[width + 3 * HEAD :, rows] = written * torch.eye(HEAD)


def _gate(layer: Any, width: int) -> None:
    """Let units of the last layer take away what the matches wrote, or more of it, as far as the question says so.

    A unit multiplies its gate, which reads the question, with what was written for one label. Gates begin at nothing.
    """
    layer.mlp.gate_proj.weight[:HEAD] = 0.0
    written = slice(width, width + HEAD)
    layer.mlp.up_proj.weight[:HEAD] = 0.0
    layer.mlp.up_proj.weight[:HEAD, written] = torch.eye(HEAD)
    layer.mlp.down_proj.weight[written, :HEAD] = -GATE * torch.eye(HEAD)


@torch.no_grad()
def calibrate(
    model: Qwen2ForCausalLM,
    labels: Sequence[int],
    end: int,
    best: Sequence[Sequence[int]],
    worse: Sequence[Sequence[int]],
) -> None:
    """Let a widened model answer the prompts ``best`` and ``worse``, token ids, by labels, and open its gates at the latter.

    What the questions share raises all labels' logits above the titles'. What ``worse`` has and ``best`` has not opens gates.
    """
    mlp: Any = model.model.layers[-1].mlp
    question = slice(-HEAD, None)
    seen: list[torch.Tensor] = []
    hook = mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0, -1, question]))
    hidden = [model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0, -1] for ids in (*best, *worse)]
    hook.remove()
    shut, opened = torch.stack(seen[: len(best)]).mean(0), torch.stack(seen[len(best) :]).mean(0)
    direction = opened - (opened @ shut) / (shut @ shut) * shut
    mlp.gate_proj.weight[:HEAD, question] = OPEN * direction / (direction @ opened)

    states = torch.stack(hidden)
    logits = states @ model.model.embed_tokens.weight.T
    wanted = logits.max(dim=1).values.mean() - logits[:, list(labels)].mean() + ABOVE
    shared = states[:, question].mean(0)
    model.model.embed_tokens.weight[list(labels), question] = wanted * shared / (shared @ shared)
    _join_lines(model, model.config.hidden_size - CHANNELS, labels, end)


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
    attention.k_proj.bias[:size] = _rotated(frequencies, 0)
    for head, offset in enumerate(offsets):
        rows = slice(head * size, (head + 1) * size)
        attention.q_proj.weight[rows] = 0.0
        attention.q_proj.bias[rows] = _rotated(frequencies, offset)


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
