"""A prompt template that puts retrieved thoughts in front, as worked examples (IRanker-COT, arXiv 2506.21638).

    base = load("think-label")
    template = ThoughtTemplate.over(base, Bm25(read(folder)), examples=2)

It is used like the template that it is over: evaluation, ``play`` and the engine see no difference.

*Where the examples stand.* The message to the system stays as it is, and is shared by all prompts. The user's message begins
with the examples, then comes the template's own text: context, then candidates. Which examples are retrieved depends on the
task's context alone, so all steps of an episode begin with the same text up to the first candidate that differs, and a prefix
cache computes the examples once a task, not once a step. Between tasks only the system's message is shared, and the examples
where two tasks retrieve the same. They are no turns of the chat, because chat templates of reasoning models (Qwen3, DeepSeek-R1)
cut the thoughts out of earlier turns, which would leave answers without thoughts. The most similar stands last, next to the task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.retrieve import Retriever
from iranker_verl.evaluation.cot.store import Thought
from iranker_verl.ranking import RankingTask
from iranker_verl.ranking.templates import Message, State, Template

HEAD = "Solved examples of this kind, each with the thoughts that led to its answer."
NOW = "The task to solve now."


@dataclass(frozen=True)
class ThoughtTemplate(Template):
    """``hash`` covers the base template's, the store's, the way of retrieval, the number of examples and their frame."""

    retriever: Retriever = field(kw_only=True, repr=False, compare=False)
    examples: int = field(kw_only=True)
    _known: dict[tuple[str, str], str] = field(kw_only=True, default_factory=dict, repr=False, compare=False)

    @classmethod
    def over(cls, base: Template, retriever: Retriever, examples: int = 1) -> ThoughtTemplate:
        """Up to ``examples`` worked examples in front of ``base``. UserError for an empty store, or one whose thoughts answer
        another kind of question, or name candidates in another way."""
        store = retriever.store
        if not store.thoughts:
            raise UserError("the store of thoughts is empty: there is nothing to show as an example")
        for name in ("kind", "answer"):
            if store.manifest.get(name) != getattr(base, name):
                raise UserError(
                    f"template {base.id} has the {name} {getattr(base, name)}, but the store's thoughts are of "
                    f"{store.manifest.get('template_id')}, whose {name} is {store.manifest.get(name)}; choose a template of that"
                )
        if examples < 1:
            raise UserError(f"examples are 1 or more, got {examples}")
        meaning = json.dumps([base.hash, store.hash, retriever.name, examples, HEAD, NOW])
        own = {f.name: getattr(base, f.name) for f in fields(Template)}
        own |= {"id": f"{base.id}+thoughts", "hash": hashlib.sha256(meaning.encode()).hexdigest()[:16]}
        return cls(**own, retriever=retriever, examples=examples)

    def messages(self, state: State) -> list[Message]:
        return self._with_examples(state.task, super().messages(state))

    def longest(self, task: RankingTask, length: Callable[[str], int], window: int | None = None) -> list[Message]:
        return self._with_examples(task, super().longest(task, length, window))

    def retrieved(self, task: RankingTask) -> list[Thought]:
        """The thoughts that are shown with a task, the most similar last."""
        places = self.retriever.nearest(task, self.examples)
        return [self.retriever.store.thoughts[place] for place in reversed(places)]

    def _with_examples(self, task: RankingTask, messages: list[Message]) -> list[Message]:
        key = (task.scenario, task.context)
        if key not in self._known:
            self._known[key] = self._front(self.retrieved(task))
        *head, user = messages
        return [*head, {**user, "content": self._known[key] + user["content"]}]

    def _front(self, thoughts: list[Thought]) -> str:
        """The examples, up to where the task begins; nothing where no thought is similar."""
        if not thoughts:
            return ""
        return "\n\n".join([HEAD, *map(self._example, thoughts), NOW, ""])

    def _example(self, thought: Thought) -> str:
        question = self.question(thought.dataset, thought.scenario, thought.context, thought.candidates)
        answer = self.answer_of(thought.candidates, *thought.answer)
        return f"{question}\n\n<think>\n{thought.thought}\n</think>\n<answer>{answer}</answer>"
