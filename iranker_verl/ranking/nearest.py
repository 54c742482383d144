"""The candidate nearest to a response that names none, as IRanker's public code reads one at test time.

It takes the answer, or the last 40 characters of a response without one, and of the candidates the one that shares the longest
run of characters with it; among equals the nearest in words (TF-IDF), then the first. A guess, so it is off but in the
``published`` template (``unreadable: nearest``), and what is guessed is counted as malformed all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

from reward_fns.answers import MAX_ANSWER_CHARS, answer_text

TAIL = 40


def nearest(response: str, texts: Sequence[str]) -> int:
    """Return the index of the candidate nearest to ``response``.

    >>> nearest("I would leave out Die Hard", ["Heat", "Die Hard (1988)", "Up"])
    1
    """
    answer = answer_text(response)[0] if "<answer>" in response else None
    said = (answer or response[-TAIL:])[:MAX_ANSWER_CHARS].strip()
    shared = [SequenceMatcher(None, said, text, autojunk=False).find_longest_match().size for text in texts]
    equals = [index for index, size in enumerate(shared) if size == max(shared)]
    if len(equals) == 1 or not said:
        return equals[0]
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer().fit_transform([said, *(texts[index] for index in equals)])
    except ValueError:  # no words at all
        return equals[0]
    alike = (vectors[1:] @ vectors[0].T).toarray().ravel()
    return equals[int(alike.argmax())]
