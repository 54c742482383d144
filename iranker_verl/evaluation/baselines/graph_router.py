"""GraphRouter (Feng, Shen and You, arXiv 2410.03834): a heterogeneous graph of tasks, queries and LLMs, in plain torch.

Query nodes have the features of their text, LLM nodes those of their description, and an edge between them the LLM's outcome
on the query. Messages pass along the edges, and a new query's edges with the LLMs are predicted from the states of the
query, its task and the LLM (:mod:`.graph_net`). In each training step a random half of the queries is treated as new: their
edges are removed from the graph and predicted, by cross entropy for one positive and squared error for graded relevance. So
no edge takes part in its own prediction, and training matches ranking, where the graph has all training edges and the new
queries have none. Some training queries are held out for early stopping. An LLM without training queries is a node without
edges, scored by its description.

Differences from the paper: a ranking task does not hold the task (benchmark) of its query, so tasks are clusters of the
training queries (k-means), described by their centres; an edge has the relevance, which combines effect and cost, in place
of both; text features are TF-IDF reduced by an SVD, unless ``context.models["graph-router"]`` names a sentence encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from iranker_verl.evaluation.baselines.base import Unavailable
from iranker_verl.evaluation.baselines.fitting import EarlyStopping, fit_early_stopping
from iranker_verl.evaluation.baselines.graph_net import Graph, GraphNet
from iranker_verl.evaluation.baselines.loading import Progress, seeded
from iranker_verl.evaluation.baselines.router_outcomes import Outcomes, Router, Scorer, loss
from iranker_verl.evaluation.baselines.text_features import Vectors, load_encoder, tfidf_svd
from iranker_verl.ranking import RankingTask


@dataclass(frozen=True)
class Settings(EarlyStopping):
    """Settings of GraphRouter; a round is a step, which predicts the edges of the share ``hidden`` of the queries learned from.

    At most ``features`` of a text (of TF-IDF), ``tasks`` that queries are grouped into, and the network's size.
    """

    rounds: int = 500
    every: int = 10
    patience: int = 5
    held_out: float = 0.2
    hidden: float = 0.5
    rate: float = 1e-3
    decay: float = 1e-2
    features: int = 64
    tasks: int = 8
    width: int = 64
    layers: int = 2
    dropout: float = 0.3


class GraphRouter(Router):
    """A graph network over tasks, queries and LLMs. Routing."""

    name = "graph-router"
    settings: Settings = Settings()
    _encoder: Vectors | None = None

    def fit(self, train: Sequence[RankingTask]) -> None:
        """Train a network for each dataset."""
        self._encoder = load_encoder(self.context, self.name)
        super().fit(train)

    def learn(self, dataset: str, known: Outcomes) -> Scorer:
        """Return the trained network as a scorer."""
        try:
            from sklearn.cluster import KMeans
        except ImportError as error:
            raise Unavailable(f"{self.name}: needs scikit-learn ({error})") from error

        settings, seed, device = self.settings, self.context.seed, self.context.device
        of_query, of_llm = self._features(known.queries), self._features(known.texts)
        queries = of_query(known.queries)
        clusters = KMeans(min(settings.tasks, len(np.unique(queries, axis=0))), n_init=10, random_state=seed)
        clusters.fit(queries)

        def tensor(values: np.ndarray, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        shown = ~np.isnan(known.relevance)
        spread = float(known.relevance[shown].std()) or 1.0  # all equal: nothing to learn, and no NaN
        outcome = np.where(shown, (known.relevance - known.relevance[shown].mean()) / spread, 0.0)
        graph = Graph(
            tensor(queries),
            tensor(clusters.labels_, torch.long),
            tensor(clusters.cluster_centers_),
            tensor(of_llm(known.texts)),
            tensor(outcome),
            tensor(shown),
        )
        target = tensor(np.where(shown, outcome, np.nan) if known.graded else known.relevance)
        with seeded(seed, device):
            net = GraphNet(queries.shape[1], graph.llms.shape[1], settings.width, settings.layers, settings.dropout)
            self._train(net.to(device), graph, target, known.graded, dataset)
        net.eval()

        def scores(texts: Sequence[str], newcomers: Mapping[str, str]) -> np.ndarray:
            new = of_query(texts)
            whole = graph.with_llms(tensor(of_llm(list(newcomers.values())))) if newcomers else graph
            with torch.inference_mode():
                found: torch.Tensor = net(whole, tensor(new), tensor(clusters.predict(new), torch.long))
            return found.double().cpu().numpy()

        return scores

    def _train(self, net: GraphNet, graph: Graph, target: torch.Tensor, graded: bool, dataset: str) -> None:
        """Train ``net``, and leave it as it was at the lowest loss on the queries held out."""
        settings, device = self.settings, self.context.device
        order = torch.randperm(len(target)).to(device)
        held, own = order.tensor_split([round(settings.held_out * len(order))])
        optimizer = torch.optim.AdamW(net.parameters(), settings.rate, weight_decay=settings.decay)
        progress = Progress(self.context.log, f"{self.name}: training on {dataset}, step", settings.rounds)

        def loss_of(hidden: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
            return loss(net(graph.of(visible), graph.queries[hidden], graph.task_of[hidden]), target[hidden], graded)

        def train(step: int) -> None:
            net.train()
            shuffled = own[torch.randperm(len(own)).to(device)]
            hidden, visible = shuffled.tensor_split([max(1, round(settings.hidden * len(own)))])
            optimizer.zero_grad()
            loss_of(hidden, visible).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            progress(step)

        def validate() -> float:
            net.eval()
            return loss_of(held if len(held) else own, own).item()

        fit_early_stopping(net.parameters(), train, validate, settings)

    def _features(self, texts: Sequence[str]) -> Vectors:
        """Texts to float64 of shape (texts, features), scaled so that those of ``texts`` have standard deviation 1."""
        raw = self._encoder or tfidf_svd(texts, self.name, self.settings.features, self.context.seed)
        spread = float(np.asarray(raw(texts), np.float64).std()) or 1.0
        return lambda given: np.asarray(raw(given), np.float64) / spread
