"""The examples in front of a prompt: what is shown, what its hash covers, what a prefix cache can keep, what is refused."""

import asyncio
import pickle
from dataclasses import replace

import pytest

from iranker_verl.errors import UserError
from iranker_verl.evaluation.cot.retrieve import Bm25Retriever
from iranker_verl.evaluation.cot.store import Store
from iranker_verl.evaluation.cot.template import FewShotTemplate
from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import EpisodeOptions, run_episodes
from iranker_verl.ranking import Elimination
from iranker_verl.ranking.direct import DirectRanking
from iranker_verl.ranking.templates import load
from tests.evaluation.cot.samples import TEMPLATE, store, task, trace

STORE = store(
    trace("how long can swifts fly", "Code does not fly.", candidates=("Swifts fly.", "Swift code."), answer=(1,)),
    trace("how long is the Nile", "A book is no river.", "passage-9", candidates=("A book.", "The Nile."), answer=(0,)),
    trace("Star Courier", "Ponies are no spaceships.", dataset="rec-game"),
)


def over(base=TEMPLATE, made=STORE, examples=2):
    return FewShotTemplate.over(base, Bm25Retriever(made), examples)


def test_a_golden_prompt():
    base, template = TEMPLATE, over()
    mine = task("how long do swifts live")
    first = template.messages(template.start(mine))
    assert first[0] == {"role": "system", "content": base.system}
    assert first[1]["role"] == "user" and len(first) == 2
    assert first[1]["content"] == (
        "Solved examples of this kind, each with the thoughts that led to its answer.\n\n"
        "Query: how long is the Nile\n\nWhich of these passages helps least to answer the query?\n[A] A book.\n[B] The Nile.\n\n"
        "<think>\nA book is no river.\n</think>\n<answer>[A]</answer>\n\n"
        "Query: how long can swifts fly\n\nWhich of these passages helps least to answer the query?\n"
        "[A] Swifts fly.\n[B] Swift code.\n\n"
        "<think>\nCode does not fly.\n</think>\n<answer>[B]</answer>\n\n"
        "The task to solve now.\n\n"
        "Query: how long do swifts live\n\nWhich of these passages helps least to answer the query?\n"
        "[A] one\n[B] two\n[C] three"
    )
    assert [t.context for t in template.retrieved(mine)] == ["how long is the Nile", "how long can swifts fly"]
    assert [t.context for t in over(examples=1).retrieved(mine)] == ["how long can swifts fly"]


def test_without_a_similar_trace_it_is_the_base_prompt():
    state = Elimination(task("nothing in common"))
    assert over().messages(state) == TEMPLATE.messages(state)


def test_a_step_shares_all_before_the_candidate_that_has_left():
    template, episode = over(), Elimination(task("how long", texts=[f"candidate {i}" for i in range(9)]))
    first = template.messages(episode)[-1]["content"]
    episode.step("[E]")
    after = template.messages(episode)[-1]["content"]
    assert after.startswith(first[: first.index("candidate 3") + len("candidate 3")])
    assert "<think>" in first[: first.index("candidate 0")]


def test_texts_are_shown_as_texts():
    made = store(trace("how {n} {context}", "{candidates} \\1", candidates=("{text}", "[B]")))
    text = over(made=made).messages(Elimination(task("how")))[-1]["content"]
    assert "Query: how {n} {context}\n" in text and "\n{candidates} \\1\n" in text and "[A] {text}\n[B] [B]\n" in text


def test_the_answer_is_in_the_templates_form():
    base = load("think-text")
    made = Store(STORE.traces, {**STORE.manifest, "answer": "text", "template_id": base.id})
    assert "<answer>Swift code.</answer>" in over(base, made).messages(Elimination(task("swifts")))[-1]["content"]
    base = load("direct-think-label")
    made = Store((trace("swifts", answer=(1, 0)),), {**STORE.manifest, "kind": "direct", "template_id": base.id})
    assert "<answer>[B] > [A]</answer>" in over(base, made).messages(DirectRanking(task("swifts")))[-1]["content"]


def test_id_and_hash():
    template = over()
    assert (template.id, template.kind, template.answer) == ("think-label+cot", "exclusion", "label")
    assert len(template.hash) == 16 and template.hash == over().hash
    by_meaning = Bm25Retriever(STORE)
    by_meaning.name = "embeddings:x"
    others = [
        TEMPLATE,
        over(replace(TEMPLATE, hash="0" * 16)),
        over(examples=1),
        over(made=store(*STORE.traces[:2])),
        FewShotTemplate.over(TEMPLATE, by_meaning, 2),
    ]
    assert len({template.hash, *(t.hash for t in others)}) == 6


def test_what_does_not_fit_is_refused():
    for base, made, words in (
        (TEMPLATE, store(), "is empty"),
        (load("direct-think-label"), STORE, "direct-think-label has the kind direct"),
        (load("setwise-label"), STORE, "setwise-label has the kind setwise"),
        (load("think-text"), STORE, "think-text has the answer text"),
    ):
        with pytest.raises(UserError, match=words):
            over(base, made)
    with pytest.raises(UserError, match="1 or more"):
        over(examples=0)
    with pytest.raises(UserError, match=r"think-label\+cot is of kind exclusion"):
        over().messages(DirectRanking(task("swifts")))


def test_no_prompt_is_longer_than_the_longest():
    mine = task("how long")
    assert over().longest(mine, len) == over().messages(Elimination(mine))


def test_it_travels_to_another_process():
    template = pickle.loads(pickle.dumps(over()))  # as Ray's workers get it
    state = Elimination(task("how long do swifts live"))
    assert template.messages(state) == over().messages(state) and template.hash == over().hash


def test_play_sees_no_difference():
    seen = []

    class Engine:
        async def ask(self, messages, max_new_tokens, temperature=0.0, **_):
            seen.append(messages[-1]["content"])
            return Generation("[B]", (1,), 1)

    episodes = asyncio.run(
        run_episodes([task("swifts"), task("Nile", id="2")], over(examples=1), Engine(), EpisodeOptions(8))
    )
    assert [e.ranking for e in episodes] == [("c0", "c2", "c1")] * 2
    assert len(seen) == 4 and all(("Code does not fly." in s) == ("Query: swifts\n" in s) for s in seen)
