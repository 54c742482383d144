"""What the server counts, for Prometheus. Names end in their units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import AnsweredStep
from iranker_verl.inference.ranker import Ranking

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """A registry of its own, so that two servers in one process count apart."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._running = Gauge("iranker_rankings_running", "Rankings under way or waiting", registry=self._registry)
        self._requests = Counter("iranker_requests", "Answers, by HTTP status", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "iranker_ranking_seconds",
            "From a list's first call to its ranking",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._empty = Counter("iranker_empty_documents", "Documents without a text", registry=self._registry)
        self._calls = Counter("iranker_model_calls", "Calls of the model", registry=self._registry)
        self._malformed = Counter("iranker_malformed_answers", "Answers without a candidate", registry=self._registry)
        self._tokens = Counter("iranker_tokens", "Tokens of the model", ["kind"], registry=self._registry)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count a ranking as under way within the context."""
        with self._running.track_inprogress():
            yield

    def answered(self, status: int) -> None:
        """Count a request to rank that was answered or refused."""
        self._requests.labels(str(status)).inc()

    def called(self, step: AnsweredStep, answer: Generation) -> None:
        """Count a call of the model."""
        self._calls.inc()
        self._malformed.inc(step.malformed)
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("new").inc(answer.new_tokens)

    def ranked(self, ranking: Ranking) -> None:
        """Count a list that was ranked to its end."""
        self._seconds.observe(ranking.seconds)
        self._empty.inc(ranking.empty)

    def text(self) -> bytes:
        """Return all counts in Prometheus' text format."""
        return generate_latest(self._registry)
