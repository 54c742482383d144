"""Initial embeddings by latent semantic analysis of the training text.

Words that occur together get similar vectors, in a second instead of minutes of gradient descent. The tiny base starts from
these embeddings, and its attention from equal query and key matrices, by which tokens attend to similar ones. A title that is one
token also has the vectors of its words, which is all that is known of a rare one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase, Qwen2ForCausalLM

from iranker_verl.ranking.chat import ChatEncoder

RARE = 20
DIMENSIONS = 24
KEY_SCALE = 0.08
EXACT = 2500  # tokens up to which all directions are computed; of more, by random projection (Halko et al. 2011)


def embeddings(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], dimensions: int, titles: Sequence[str] = ()
) -> torch.Tensor:
    """Return one row a token: the leading directions of positive pointwise mutual information over ``texts``.

    Tokens in fewer than ``RARE`` texts get zeros; the others' mean length is one. ``titles`` are tokens with the space before
    them: each occurs together with its words, and the mean of their vectors, the rarer ones' for more, is added to its own.
    """
    size, chat = len(tokenizer), ChatEncoder(tokenizer)
    spelled = list(dict.fromkeys(word for title in titles for word in title.split()))
    pieces = dict(zip(spelled, chat.encode_texts([f" {word}" for word in spelled]), strict=True))
    words = {
        token: torch.tensor(sorted({piece for word in title.split() for piece in pieces[word]}))
        for title, [token] in zip(titles, chat.encode_texts([f" {title}" for title in titles]), strict=True)
    }
    pairs, single = torch.zeros(size, size), torch.zeros(size)
    for at in range(0, len(texts), 1024):
        batch = chat.encode_texts(texts[at : at + 1024])
        present = torch.zeros(len(batch), size)
        for row, ids in zip(present, batch, strict=True):
            row[ids] = 1.0
            for own in [words[i] for i in ids if i in words]:
                row[own] = 1.0
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
    rarity = torch.where(known, torch.log(len(texts) / single.clamp(min=1.0)), 0.0)[:, None]
    composed = {
        token: (vectors[own] * rarity[own]).sum(0) / rarity[own].sum().clamp(min=1e-6) for token, own in words.items()
    }
    for token, mean in composed.items():
        vectors[token] += mean
        known[token] |= bool(mean.any())
    length = vectors.norm(dim=1)[known].mean() if known.any() else torch.tensor(1.0)
    return vectors / length.clamp(min=1e-6)


@torch.no_grad()
def initialise(model: Qwen2ForCausalLM, vectors: torch.Tensor, mean: bool = False) -> None:
    """Add ``vectors`` to the random embeddings, with their length and a random rotation, and set queries equal to keys.

    With ``mean``, the first head of the first layer writes the mean of the vectors so far, so that the model begins by
    predicting what is similar to all that was before.
    """
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
    if mean:
        attention, size = model.model.layers[0].self_attn, vectors.shape[1]
        rows = slice(0, width // config.num_attention_heads)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
            projection.weight[rows] = 0.0
        attention.v_proj.weight[:size] = turn.T
        attention.o_proj.weight[:, rows] = 0.0
        attention.o_proj.weight[:, :size] = turn
