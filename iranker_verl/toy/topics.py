"""Initial embeddings by latent semantic analysis of the training text.

Words that occur together get similar vectors, in a second instead of minutes of gradient descent. The tiny base starts from
these embeddings, and its attention from equal query and key matrices, by which tokens attend to similar ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from iranker_verl.ranking.chat import ChatEncoder

RARE = 20
DIMENSIONS = 24
KEY_SCALE = 0.08
COPY_SCALE = 0.25
LOOK_SCALE = 6.5
EXACT = 2500  # tokens up to which all directions are computed; of more, by random projection (Halko et al. 2011)


def embeddings(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], dimensions: int) -> torch.Tensor:
    """Return one row a token: the leading directions of positive pointwise mutual information over ``texts``.

    Tokens in fewer than ``RARE`` texts get zeros; the others' mean length is one.
    """
    size, chat = len(tokenizer), ChatEncoder(tokenizer)
    pairs, single = torch.zeros(size, size), torch.zeros(size)
    for at in range(0, len(texts), 1024):
        batch = chat.encode_texts(texts[at : at + 1024])
        present = torch.zeros(len(batch), size)
        for row, ids in zip(present, batch, strict=True):
            row[ids] = 1.0
        pairs += present.T @ present
        single += present.sum(0)
    known = single >= RARE
    expected = single[:, None] * single[None] / max(len(texts), 1)
    information = torch.log((pairs + 1e-3) / (expected + 1e-3)).clamp(min=0.0)
    information *= known[:, None] & known[None]
    information.fill_diagonal_(0.0)
    if size <= EXACT:
        directions, strength, _ = torch.linalg.svd(information)
    else:
        directions, strength, _ = torch.svd_lowrank(information, q=2 * dimensions, niter=4)
    vectors = directions[:, :dimensions] * strength[:dimensions].sqrt()
    length = vectors.norm(dim=1)[known].mean() if known.any() else torch.tensor(1.0)
    return vectors / length.clamp(min=1e-6)


@torch.no_grad()
def initialise(model: Qwen2ForCausalLM, vectors: torch.Tensor) -> None:
    """Add ``vectors`` to the random embeddings, with their length and a random rotation, and set queries equal to keys."""
    config = model.config
    width = config.hidden_size
    turn = torch.linalg.qr(torch.randn(width, vectors.shape[1]))[0]
    model.model.embed_tokens.weight += config.initializer_range * width**0.5 * vectors @ turn.T
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.k_proj.weight.normal_(0.0, KEY_SCALE)
        keys = config.num_key_value_heads or config.num_attention_heads
        heads = attention.k_proj.weight.view(keys, -1, width)
        shared = config.num_attention_heads // keys
        attention.q_proj.weight.copy_(heads.repeat_interleave(shared, 0).reshape(-1, width))


@torch.no_grad()
def copy_values(model: Qwen2ForCausalLM) -> None:
    """Let every head write what it attends to: outputs are the transposes of values, whose rows are orthogonal.

    What a head of random values and outputs writes says nothing until both are learned. A head that copies is half of what
    matching by context takes (Elhage et al., A mathematical framework for transformer circuits, 2021); the other half, queries
    equal to keys, is :func:`initialise`'s.
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
    """Let heads of the first layer attend to the token ``offsets`` places back, one head an offset, whatever the tokens are.

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
