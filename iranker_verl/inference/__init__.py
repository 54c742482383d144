"""Ranking with a trained model: vLLM in process, the loop that keeps it busy, and the library's :class:`Ranker`."""

from iranker_verl.inference.ranker import AsyncRanker, Ranker, Ranking, Unrankable

__all__ = ["AsyncRanker", "Ranker", "Ranking", "Unrankable"]
