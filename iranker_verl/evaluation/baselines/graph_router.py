"""GraphRouter (Feng, Shen and You, arXiv 2410.03834): a heterogeneous graph of tasks, queries and LLMs, in plain torch.

Query nodes bear the features of their text, LLM nodes those of their description, an edge between them what the LLM was
worth on the query. Messages pass along the edges, and a new query's edges with the LLMs are predicted from the states of
the query, its task and the LLM (:mod:`.graph_net`). In each training step a random half of the queries plays the new ones:
their edges are taken out of the graph and have to be predicted, by cross entropy for one positive and squared error for
graded relevance. So no edge is ever seen by its own prediction, and ranking is what was trained: all training edges are in
the graph and the new queries have none. Some training queries are held out to tell when to stop. An LLM that training did not show is a node without edges; its description gives
its score.

What differs from the paper: the tasks (benchmarks) of queries are not in a ranking task, so they are found, as clusters of
the training queries (k-means), with the centre for a description; an edge bears the relevance, which has effect and cost in
it, in place of both; text features are TF-IDF brought to fewer dimensions by an SVD, unless ``context.models["graph-router"]``
names a sentence encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from iranker_verl.evaluation.baselines.base import Context, Unavailable
from iranker_verl.evaluation.baselines.loading import Progress, seeded
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, loss
from iranker_verl.evaluation.baselines.text_features import Vectors, encoder, tfidf_svd
from iranker_verl.ranking import RankingTask

if TYPE_CHECKING:
    import torch

    from iranker_verl.evaluation.baselines.graph_net import Graph, GraphNet

_CHECK = 10  # steps


@dataclass(frozen=True)
class Settings:
    """``features`` of a text at most (of TF-IDF), ``tasks`` that queries are grouped into, and the network's size and
    training: ``steps`` at most, until the loss on the share ``held`` of the queries has not fallen for ``patience`` checks,
    one every ten steps. ``hidden`` is the share of the other queries whose edges a step predicts."""

    features: int = 64
    tasks: int = 8
    width: int = 64
    layers: int = 2
    dropout: float = 0.3
    steps: int = 500
    rate: float = 1e-3
    decay: float = 1e-2
    hidden: float = 0.5
    held: float = 0.2
    patience: int = 5


class GraphRouter(Router):
    name = "graph-router"

    def __init__(self, context: Context, settings: Settings | None = None) -> None:
        super().__init__(context)
        self._settings = settings or Settings()
        self._encoder: Vectors | None = None

    def fit(self, train: Sequence[RankingTask]) -> None:
        self._encoder = encoder(self._context, self.name)
        super().fit(train)

    def _learn(self, dataset: str, known: Outcomes) -> Scorer:
        try:
            import torch
            from sklearn.cluster import KMeans

            from iranker_verl.evaluation.baselines.graph_net import Graph, GraphNet
        except ImportError as error:
            raise Unavailable(f"{self.name}: needs torch and scikit-learn ({error})") from error

        settings, seed, device = self._settings, self._context.seed, self._context.device
        of_query, of_llm = self._features(known.queries), self._features(known.texts)
        queries = of_query(known.queries)
        clusters = KMeans(min(settings.tasks, len(np.unique(queries, axis=0))), n_init=10, random_state=seed)
        clusters.fit(queries)

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        def places(values: np.ndarray) -> torch.Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        shown = ~np.isnan(known.relevance)
        spread = float(known.relevance[shown].std()) or 1.0  # all alike: nothing to learn, and no NaN
        centre = float(known.relevance[shown].mean())
        outcome = np.where(shown, (known.relevance - centre) / spread, 0.0)
        graph = Graph(
            tensor(queries),
            places(clusters.labels_),
            tensor(clusters.cluster_centers_),
            tensor(of_llm(known.texts)),
            tensor(outcome),
            tensor(shown),
        )
        target = tensor(np.where(shown, outcome, np.nan) if known.graded else known.relevance)
        with seeded(seed, device):
            net = GraphNet(queries.shape[1], graph.llms.shape[1], settings.width, settings.layers, settings.dropout).to(
                device
            )
            self._train(net, graph, target, known.graded, dataset)
        net.eval()

        def scores(texts: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            new = of_query(texts)
            whole = graph
            if newcomers:
                none = torch.zeros(len(queries), len(newcomers), device=device)
                whole = Graph(
                    graph.queries,
                    graph.task_of,
                    graph.tasks,
                    torch.cat([graph.llms, tensor(of_llm(list(newcomers.values())))]),
                    torch.cat([graph.outcome, none], dim=1),
                    torch.cat([graph.edge, none], dim=1),
                )
            with torch.inference_mode():
                found: np.ndarray = net(whole, tensor(new), places(clusters.predict(new))).double().cpu().numpy()
            return found

        return scores

    def _train(self, net: GraphNet, graph: Graph, target: torch.Tensor, graded: bool, dataset: str) -> None:
        """Leaves ``net`` as it was at the check with the least loss on the queries held out."""
        import torch

        settings, device = self._settings, self._context.device
        order = torch.randperm(len(target)).to(device)
        held, own = order.tensor_split([round(settings.held * len(order))])
        optimizer = torch.optim.AdamW(net.parameters(), settings.rate, weight_decay=settings.decay)
        progress = Progress(self._context.say, f"{self.name}: training on {dataset}, step", settings.steps)
        kept, least, since = None, float("inf"), 0

        def loss_of(hidden: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
            found = net(graph.of(visible), graph.queries[hidden], graph.task_of[hidden])
            return loss(found, target[hidden], graded)

        for step in range(1, settings.steps + 1):
            shuffled = own[torch.randperm(len(own)).to(device)]
            hidden, visible = shuffled.tensor_split([max(1, round(settings.hidden * len(own)))])
            optimizer.zero_grad()
            loss_of(hidden, visible).backward()
            optimizer.step()
            progress(step)
            if step % _CHECK or not len(held):
                continue
            net.eval()
            with torch.no_grad():
                now = loss_of(held, own).item()
            net.train()
            since += 1
            if now < least:
                kept, least, since = {name: value.clone() for name, value in net.state_dict().items()}, now, 0
            if since == settings.patience:
                break
        if kept is not None:
            net.load_state_dict(kept)

    def _features(self, texts: Sequence[str]) -> Vectors:
        """Texts to float64 of shape (texts, features), of which those of ``texts`` spread by 1 around 0 on the whole."""
        raw = self._encoder or tfidf_svd(texts, self.name, self._settings.features, self._context.seed)
        known = np.asarray(raw(texts), np.float64)
        spread = float(known.std()) or 1.0
        return lambda given: np.asarray(raw(given), np.float64) / spread
