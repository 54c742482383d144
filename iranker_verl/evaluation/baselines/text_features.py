"""Vectors of texts for the routing baselines: TF-IDF by scikit-learn, or a sentence encoder that the user names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_prep.duplicates import split_words
from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.evaluation.baselines.loading import encode_in_batches, load_sentence_encoder

Vectors = Callable[[Sequence[str]], Any]  # texts to an array, or a sparse matrix, of shape (texts, features)


def tfidf(texts: Sequence[str], baseline: str) -> Vectors:
    """Return TF-IDF fitted on ``texts`` (1 + log of the counts, rows of length 1); sparse."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError as error:
        raise Unavailable(f"{baseline}: needs scikit-learn, which is not installed") from error
    # a text without a word is its own only word
    vectorizer = TfidfVectorizer(analyzer=lambda text: split_words(text) or [text], sublinear_tf=True)
    return vectorizer.fit(texts).transform  # type: ignore[no-any-return]


def tfidf_svd(texts: Sequence[str], baseline: str, width: int, seed: int) -> Vectors:
    """Return TF-IDF reduced to at most ``width`` dimensions by a truncated SVD of ``texts`` (latent semantic analysis)."""
    sparse = tfidf(texts, baseline)
    known = sparse(texts)
    if min(known.shape) <= width:  # nothing to reduce
        return lambda given: sparse(given).toarray()
    from sklearn.decomposition import TruncatedSVD

    svd = TruncatedSVD(width, random_state=seed).fit(known)
    return lambda given: svd.transform(sparse(given))


def load_encoder(context: Context, baseline: str) -> Vectors | None:
    """Return the sentence encoder that ``context.models`` names for the baseline, None where it names none."""
    if baseline not in context.models:
        return None
    model = load_sentence_encoder(context, baseline)
    return lambda texts: np.concatenate(
        list(encode_in_batches(context, f"{baseline}: encoding texts", texts, model.encode))
    )
