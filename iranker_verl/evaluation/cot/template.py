"""A prompt template that puts retrieved reasoning traces in front, as worked examples (IRanker-COT, arXiv 2506.21638).

    base = load("think-label")
    template = FewShotTemplate.over(base, Bm25Retriever(read_traces(folder)), examples=2)

It is used like the template that it is over, by evaluation, the episode loop and the engine alike.

*Position of the examples.* The system message is unchanged, and shared by all prompts. The user message begins with the
examples, followed by the template's own text: context, then candidates. Retrieval depends on the task's context alone, so
all steps of an episode begin with the same text up to the first candidate that differs, and a prefix cache computes the
examples once a task, not once a step. The examples are not turns of the chat, because chat templates of reasoning models
(Qwen3, DeepSeek-R1) cut the reasoning out of earlier turns. The most similar example is last, next to the task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.leaks import Proof, prove_for_data
from iranker_verl.evaluation.cot.retrieve import Bm25Retriever, EmbeddingRetriever, Retriever, load_encoder
from iranker_verl.evaluation.cot.store import ReasoningTrace, read_traces
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Message, State, Template

HEAD = "Solved examples of this kind, each with the thoughts that led to its answer."
NOW = "The task to solve now."


@dataclass(frozen=True)
class FewShotTemplate(Template):
    """``hash`` covers the base template's, the store's, the retrieval method, the number of examples and their frame."""

    retriever: Retriever = field(kw_only=True, repr=False, compare=False)
    examples: int = field(kw_only=True)
    _known: dict[tuple[str, str], str] = field(kw_only=True, default_factory=dict, repr=False, compare=False)

    @classmethod
    def over(cls, base: Template, retriever: Retriever, examples: int = 1) -> FewShotTemplate:
        """Return ``base`` with up to ``examples`` worked examples in front.

        Raise UserError for an empty store, or one whose traces answer another kind of question, or name candidates in
        another form.
        """
        store = retriever.store
        if not store.traces:
            raise UserError("the store of reasoning traces is empty: there is nothing to show as an example")
        for name in ("kind", "answer"):
            if store.manifest.get(name) != getattr(base, name):
                raise UserError(
                    f"template {base.id} has the {name} {getattr(base, name)}, but the store's traces are of "
                    f"{store.manifest.get('template_id')}, whose {name} is {store.manifest.get(name)}; choose a template of that"
                )
        if examples < 1:
            raise UserError(f"examples are 1 or more, got {examples}")
        made_of = json.dumps([base.hash, store.hash, retriever.name, examples, HEAD, NOW])
        own = {f.name: getattr(base, f.name) for f in fields(Template)}
        own |= {"id": f"{base.id}+cot", "hash": hashlib.sha256(made_of.encode()).hexdigest()[:16]}
        return cls(**own, retriever=retriever, examples=examples)

    def messages(self, state: State) -> list[Message]:
        """Return the base template's messages, with the examples at the start of the user message."""
        return self._with_examples(state.task, super().messages(state))

    def longest(self, task: RankingTask, length: Callable[[str], int], window: int | None = None) -> list[Message]:
        """Return the longest messages of the task's episodes, with the examples."""
        return self._with_examples(task, super().longest(task, length, window))

    def retrieved(self, task: RankingTask) -> list[ReasoningTrace]:
        """Return the traces of a task's examples, the most similar last."""
        return [self.retriever.store.traces[i] for i in reversed(self.retriever.nearest(task, self.examples))]

    def _with_examples(self, task: RankingTask, messages: list[Message]) -> list[Message]:
        key = (task.scenario, task.context)
        if key not in self._known:
            examples = [self._example(trace) for trace in self.retrieved(task)]
            self._known[key] = "\n\n".join([HEAD, *examples, NOW, ""]) if examples else ""
        *head, user = messages
        return [*head, {**user, "content": self._known[key] + user["content"]}]

    def _example(self, trace: ReasoningTrace) -> str:
        return "\n\n".join(trace.exchange(self))


def with_traces(
    base: Template, store: Path, data: Path, examples: int = 1, model: str | None = None
) -> tuple[FewShotTemplate, Proof]:
    """Return ``base`` with worked examples from a store, and the proof that none is of a test query of ``data``.

    Examples are retrieved by BM25, or by the embeddings of ``model``, a sentence-transformers folder or name.
    """
    content = read_traces(store)
    proof = prove_for_data(content, data)
    retriever = Bm25Retriever(content) if model is None else EmbeddingRetriever(content, load_encoder(model), model)
    return FewShotTemplate.over(base, retriever, examples), proof
