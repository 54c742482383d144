"""Numbers of texts for the baselines of routing: words weighed by scikit-learn, or a sentence encoder that the user names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.evaluation.baselines.loading import Progress, sentence_encoder

Vectors = Callable[[Sequence[str]], Any]  # texts to an array, or a sparse matrix, of shape (texts, features)


def tfidf(texts: Sequence[str], baseline: str) -> Vectors:
    """TF-IDF (1 + log of the counts, rows of length 1) as the ``texts`` have it; sparse."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise Unavailable(f"{baseline}: needs scikit-learn, which is not installed") from error
    return TfidfVectorizer(analyzer=_words, sublinear_tf=True).fit(texts).transform  # type: ignore[no-any-return]


def tfidf_svd(texts: Sequence[str], baseline: str, width: int, seed: int) -> Vectors:
    """TF-IDF brought to ``width`` dimensions at most by a truncated SVD of the ``texts`` (latent semantic analysis)."""
    sparse = tfidf(texts, baseline)
    known = sparse(texts)
    if min(known.shape) <= width:  # nothing to be left out
        return lambda given: sparse(given).toarray()
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(width, random_state=seed).fit(known)
    return lambda given: svd.transform(sparse(given))


def encoder(context: Context, baseline: str) -> Vectors | None:
    """The sentence encoder that ``context.models`` names for the baseline, None where it names none."""
    if baseline not in context.models:
        return None
    model = sentence_encoder(context, baseline)
    size = 16 if context.device == "cpu" else 128

    def encode(texts: Sequence[str]) -> np.ndarray:
        progress = Progress(context.say, f"{baseline}: encoding texts", len(texts))
        batches = []
        for start in range(0, len(texts), size):
            batches.append(model.encode(list(texts[start : start + size]), batch_size=size, show_progress_bar=False))
            progress(start + len(batches[-1]))
        return np.concatenate(batches)

    return encode


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold()) or [text]  # a text without a word is one by itself
