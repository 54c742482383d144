"""What the server counts, for Prometheus. Names end in their units."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import AnsweredStep

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """A registry of its own, so that two servers in one process count apart."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.under_way = 0
        self._running = Gauge("iranker_rankings_running", "Rankings under way or waiting", registry=self._registry)
        self._requests = Counter("iranker_requests", "Answers, by HTTP status", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "iranker_ranking_seconds",
            "From a list's first call to its ranking",
            buckets=SECONDS,
            registry=self._registry,
        )
        self._calls = Counter("iranker_model_calls", "Calls of the model", registry=self._registry)
        self._malformed = Counter("iranker_malformed_answers", "Answers without a candidate", registry=self._registry)
        self._tokens = Counter("iranker_tokens", "Tokens of the model", ["kind"], registry=self._registry)

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Within it a ranking is under way."""
        self.under_way += 1
        self._running.set(self.under_way)
        try:
            yield
        finally:
            self.under_way -= 1
            self._running.set(self.under_way)

    def answered(self, status: int) -> None:
        """A request to rank was answered, if only refused."""
        self._requests.labels(str(status)).inc()

    def called(self, step: AnsweredStep, answer: Generation) -> None:
        """The model was called once."""
        self._calls.inc()
        self._malformed.inc(step.malformed)
        self._tokens.labels("prompt").inc(answer.prompt_tokens)
        self._tokens.labels("new").inc(answer.new_tokens)

    def ranked(self, seconds: float) -> None:
        """A list was ranked to its end."""
        self._seconds.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
