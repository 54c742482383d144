"""The network of :mod:`.graph_router`: message passing over tasks, queries and LLMs, and the score of an edge.

Notation: n queries whose outcomes are known, T tasks, L LLMs, w the width. Every query belongs to one task, and has an edge
with each LLM that it was tried on, with the outcome as its feature. New queries have a task and no edge, so no message goes
from them to the rest of the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Graph:
    """Queries, tasks, LLMs and the outcomes between them.

    ``queries`` (n, features), ``task_of`` (n,) indices of tasks, ``tasks`` (T, features), ``llms`` (L, features), and
    ``outcome`` (n, L), 0 where there is no edge; ``edge`` (n, L) is 1 where there is one and 0 elsewhere.
    """

    queries: Tensor
    task_of: Tensor
    tasks: Tensor
    llms: Tensor
    outcome: Tensor
    edge: Tensor

    def of(self, indices: Tensor) -> Graph:
        """Return the graph with these of its queries only."""
        return replace(
            self,
            queries=self.queries[indices],
            task_of=self.task_of[indices],
            outcome=self.outcome[indices],
            edge=self.edge[indices],
        )

    def with_llms(self, llms: Tensor) -> Graph:
        """Return the graph with further LLMs (L', features), which have no edges."""
        none = self.edge.new_zeros(len(self.queries), len(llms))
        return replace(
            self,
            llms=torch.cat([self.llms, llms]),
            outcome=torch.cat([self.outcome, none], dim=1),
            edge=torch.cat([self.edge, none], dim=1),
        )


def _mean(weights: Tensor, values: Tensor, count: Tensor) -> Tensor:
    return weights @ values / count.clamp(min=1)[:, None]


class Layer(nn.Module):
    """One round of messages.

    A node's new state is ``relu(own(h) + mean of the messages of each kind of neighbour)``; a message over an edge of outcome e
    is ``plain(h) + e * weighed(h)``.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

        def linear() -> nn.Linear:
            return nn.Linear(width, width)

        self.own_query, self.own_task, self.own_llm = linear(), linear(), linear()
        self.task_to_query, self.query_to_task = linear(), linear()
        self.llm_to_query, self.llm_to_query_weighed = linear(), linear()
        self.query_to_llm, self.query_to_llm_weighed = linear(), linear()

    def forward(
        self, graph: Graph, query: Tensor, task: Tensor, llm: Tensor, new: Tensor, new_task: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the states of the known queries (n, w), tasks (T, w), LLMs (L, w) and new queries, after one more round."""
        tried, triers = graph.edge.sum(dim=1), graph.edge.sum(dim=0)
        belongs = nn.functional.one_hot(graph.task_of, len(task)).to(query.dtype)
        from_llms = _mean(graph.edge, self.llm_to_query(llm), tried)
        from_llms = from_llms + _mean(graph.outcome, self.llm_to_query_weighed(llm), tried)
        from_queries = _mean(graph.edge.T, self.query_to_llm(query), triers)
        from_queries = from_queries + _mean(graph.outcome.T, self.query_to_llm_weighed(query), triers)
        of_task = _mean(belongs.T, self.query_to_task(query), belongs.sum(dim=0))
        to_query = self.task_to_query(task)
        return (
            (self.own_query(query) + to_query[graph.task_of] + from_llms).relu(),
            (self.own_task(task) + of_task).relu(),
            (self.own_llm(llm) + from_queries).relu(),
            (self.own_query(new) + to_query[new_task]).relu(),
        )


class GraphNet(nn.Module):
    """Score new queries with all LLMs: ``left([query, task]) . right(llm) / sqrt(w) + bias(llm)``."""

    def __init__(self, query_features: int, llm_features: int, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.query_in, self.task_in = nn.Linear(query_features, width), nn.Linear(query_features, width)
        self.llm_in = nn.Linear(llm_features, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(layers))
        self.dropout, self.left = nn.Dropout(dropout), nn.Linear(2 * width, width)
        self.right, self.bias = nn.Linear(width, width), nn.Linear(width, 1)

    def forward(self, graph: Graph, queries: Tensor, task_of: Tensor) -> Tensor:
        """Return scores (m, L) of ``queries`` (m, features) with their tasks ``task_of`` (m,)."""
        query, task = self.query_in(self.dropout(graph.queries)).relu(), self.task_in(graph.tasks).relu()
        llm, new = self.llm_in(graph.llms).relu(), self.query_in(self.dropout(queries)).relu()
        for layer in self.layers:
            query, task, llm, new = layer(graph, query, task, llm, new, task_of)
        left, right = self.left(self.dropout(torch.cat([new, task[task_of]], dim=1))), self.right(llm)
        scores: Tensor = left @ right.T / right.shape[1] ** 0.5 + self.bias(llm).T
        return scores
