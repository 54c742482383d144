"""One's own texts, ranked by a model of a server that is none: orders, what is asked, and what is refused."""

import asyncio
import json
import re
import time

import pytest

from iranker_verl.errors import UserError
from iranker_verl.inference import AsyncRanker, Ranker, Unrankable
from iranker_verl.inference.endpoint import Endpoint
from iranker_verl.inference.engine import Generation
from iranker_verl.inference.episode import EpisodeOptions, run_episode
from iranker_verl.ranking import Candidate, RankingTask
from iranker_verl.ranking.templates import load
from tests import tiny_models
from tests.fake_openai import FakeServer, answer

pytest.importorskip("openai")
FLEAS = ["Fleas feed on blood.", "A flea can live\n up to a year.", "Eggs hatch in a week."]


def drops(*words):
    """Excludes the first of these words that is shown, as a label."""

    def respond(request, number):
        shown = dict(re.findall(r"^\[([A-Z])\] (.*)$", request["messages"][-1]["content"], flags=re.MULTILINE))
        named = next((key for word in words for key, text in shown.items() if word in text), None)
        return 200, answer(f"<answer>[{named}]</answer>" if named else "hm")

    return respond


@pytest.fixture
def asked():
    """A ranker over a fake server: ``asked(respond, **options)``; its ``server`` keeps the requests."""
    opened = []

    def make(respond, **options):
        server = FakeServer(respond)
        context = server.serving()
        context.__enter__()
        opened.append(context)
        ranker = Ranker(Endpoint(server.url, "fake", retries=0), **options)
        return server, ranker

    yield make
    for context in opened:
        context.__exit__(None, None, None)


def test_an_order_and_how_it_came_about(asked):
    server, ranker = asked(drops("blood", "week"))
    with ranker:
        ranking = ranker.rank("how long do fleas live", FLEAS)
    assert ranking.order == (1, 2, 0) and ranking.scores() == (0.0, 1.0, 0.5)
    assert (ranking.malformed, ranking.prompt_tokens, ranking.new_tokens) == (0, 14, 2)
    first, second = ranking.explained()
    assert (first["pool"], first["excluded"], first["status"]) == ([0, 1, 2], 0, "ok")
    assert (second["pool"], second["excluded"], second["response"]) == ([1, 2], 2, "<answer>[B]</answer>")
    prompt = server.requests[0]["messages"][-1]["content"]
    assert "[B] A flea can live up to a year." in prompt  # on one line, as in preparation
    assert server.requests[0]["max_tokens"] == 1024 and server.requests[0]["temperature"] == 0
    json.dumps(ranking.explained())


def test_what_names_nobody_is_counted(asked):
    _, ranker = asked(drops("blood"))
    with ranker:
        ranking = ranker.rank("fleas", FLEAS)
    assert ranking.order == (1, 2, 0) and ranking.malformed == 1


def test_nothing_is_asked_where_nothing_is_to_be_decided(asked):
    server, ranker = asked(drops())
    with ranker:
        assert ranker.rank("q", ["alone"]).order == (0,) and ranker.rank("q", ["alone"]).scores() == (1.0,)
        assert ranker.rank("q", []).order == ()
    assert server.requests == []


def test_a_long_list_is_shown_in_parts(asked):
    texts = [f"number {n:02}" for n in range(30)]
    server, ranker = asked(drops(*texts), window=4)  # the lowest number leaves
    with ranker:
        ranking = ranker.rank("q", texts)
    assert ranking.order[:3] == (29, 28, 27) and len(ranking.steps) == 29
    assert max(r["messages"][-1]["content"].count("number") for r in server.requests) == 4


@pytest.mark.parametrize(("scenario", "words"), [("passage", "passages"), ("rec-movie", "movies"), ("routing", "llms")])
def test_the_scenario_chooses_the_words(asked, scenario, words):
    server, ranker = asked(drops("blood"))
    with ranker:
        ranker.rank("fleas", FLEAS[:2], scenario=scenario)
    assert words in server.requests[0]["messages"][-1]["content"].lower()


@pytest.mark.parametrize("template", ["direct-label", "setwise-label", "pairwise-label"])
def test_other_ways_to_a_ranking(asked, template):
    _, ranker = asked(drops("year", "week", "blood"), template=template)
    with ranker:
        ranking = ranker.rank("fleas", FLEAS)
    assert ranking.order[0] == 1 and sorted(ranking.order) == [0, 1, 2]
    json.dumps(ranking.explained())


def test_many_lists_at_once_and_no_more_than_allowed(asked):
    def slowly(request, number):
        time.sleep(0.02)
        return drops("blood", "week")(request, number)

    server, ranker = asked(slowly, concurrency=3)
    done = []
    with ranker:
        found = ranker.rank_all([("q", FLEAS)] * 8, on_done=lambda place, ranking: done.append((place, ranking.order)))
    assert [r.order for r in found] == [(1, 2, 0)] * 8 and sorted(done) == [(n, (1, 2, 0)) for n in range(8)]
    assert server.most == 3


@pytest.mark.parametrize("empty", ["", " \n\u3000"])
def test_candidates_without_a_text_are_last_counted_and_never_shown(asked, empty):
    server, ranker = asked(drops("blood"))
    with ranker:
        ranking = ranker.rank("fleas", [empty, FLEAS[0], empty, FLEAS[1]])
        assert (ranking.order, ranking.empty, len(ranking.steps)) == ((3, 1, 0, 2), 2, 1)
        assert ranking.explained()[0]["pool"] == [1, 3] and min(ranking.scores()) == 0
        asked_before = len(server.requests)
        alone = ranker.rank("fleas", [empty, FLEAS[0]])
        nothing = ranker.rank("fleas", [empty, empty])
    assert (alone.order, alone.empty, nothing.order, nothing.empty) == ((1, 0), 1, (0, 1), 2)
    assert len(server.requests) == asked_before


def test_what_cannot_be_ranked_is_one_line_and_asks_nothing(asked):
    server, ranker = asked(drops())
    with ranker:
        with pytest.raises(Unrankable, match="the query is empty"):
            ranker.rank("  ", FLEAS)
        with pytest.raises(Unrankable, match="scenario 'films': choose one of recommendation"):
            ranker.rank("q", FLEAS, scenario="films")
        with pytest.raises(Unrankable, match=r"list 1 \(counted from 0\): the query is empty"):
            ranker.rank_all([("q", FLEAS), ("", FLEAS)])
    assert server.requests == []
    for options, words in (
        ({"window": 1}, "window is at least 2, got 1"),
        ({"concurrency": 0}, "concurrency is at least 1, got 0"),
        ({"max_new_tokens": 0}, "max_new_tokens is at least 1, got 0"),
        ({"window": 5, "template": "direct-label"}, "window 5 has no effect with the template direct-label"),
        ({"max_model_len": 99}, "max_model_len 99 has no effect with an endpoint"),
    ):
        with pytest.raises(UserError, match=words):
            AsyncRanker(Endpoint("http://host/v1", "x"), **options)


def test_a_server_that_fails_ends_all(asked):
    _, ranker = asked(lambda request, number: (400, {"error": {"message": "no"}}))
    with ranker, pytest.raises(UserError, match="no"):
        ranker.rank_all([("q", FLEAS)] * 3)


def test_it_has_to_be_open():
    ranker = AsyncRanker(Endpoint("http://host/v1", "x"))
    with pytest.raises(RuntimeError, match="async with"):
        asyncio.run(ranker.rank("q", FLEAS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return tiny_models.save(tmp_path_factory.mktemp("runs") / "mine" / "model")


def stamp(folder, **content):
    (folder / "iranker.json").write_text(json.dumps(content))


def test_a_trained_models_own_template_and_length(folder):
    template = load("label")
    stamp(folder, template_id="label", template_hash=template.hash, max_new_tokens=4)
    ranker = AsyncRanker(folder)
    assert ranker.name == "mine" and ranker.template.id == "label"
    about = ranker.about()
    assert about["template_hash"] == template.hash and about["max_new_tokens"] == 4 and len(about["model_hash"]) == 16
    assert AsyncRanker(folder, max_new_tokens=8).about()["max_new_tokens"] == 8
    with pytest.raises(UserError, match=f"{template.hash}.*think-label"):
        AsyncRanker(folder, template="think-label")
    stamp(folder, template_id="label", template_hash="0" * 16)
    with pytest.raises(UserError, match=f"{'0' * 16}.*{template.hash}"):
        AsyncRanker(folder)
    (folder / "iranker.json").unlink()
    assert AsyncRanker(folder, max_new_tokens=8).template.id == "think-label"
    for options, words in (
        ({}, "an answer of up to 1024 tokens leaves no room for a prompt in 512; give a smaller max_new_tokens"),
        ({"max_new_tokens": 8, "max_model_len": 513}, "max_model_len is 513, but the model admits 512"),
    ):
        with pytest.raises(UserError, match=words):
            AsyncRanker(folder, **options)


def test_what_a_model_is_called(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    made = tiny_models.save(tmp_path / "runs" / "mine" / "checkpoints" / "global_step_20" / "actor" / "huggingface")
    assert AsyncRanker(made.parents[1], max_new_tokens=8).name == "mine"
    plain = tiny_models.save(tmp_path / "some-model")
    assert AsyncRanker(plain, max_new_tokens=8).name == "some-model"
    monkeypatch.setattr("iranker_verl.inference.models.hub_folder", lambda name: plain)
    assert AsyncRanker("Qwen/Qwen2.5-0.5B-Instruct", max_new_tokens=8).name == "Qwen/Qwen2.5-0.5B-Instruct"


def test_texts_that_are_too_long_are_refused_before_anything_is_loaded(folder):
    ranker = AsyncRanker(folder, template="label", max_new_tokens=4)
    assert ranker.check("q", ["x" * 200, "y" * 200]) is not None  # of 512 tokens, a byte each
    with pytest.raises(
        Unrankable, match=r"take \d+, and there is room for 512; shorten the texts, show fewer at once \(window\), or"
    ):
        ranker.check("q", ["x" * 400, "y" * 200])
    many = ["x" * 100] * 6
    with pytest.raises(Unrankable, match="room for 512"):
        ranker.check("q", many)
    with pytest.raises(Unrankable, match=r"a prompt of 20,\d\d\d characters is too long for 512 tokens"):
        ranker.check("q", ["x", "y" * 20_000])
    assert AsyncRanker(folder, template="label", max_new_tokens=4, window=3).check("q", many) is not None


def test_a_constrained_answer_has_room_for_what_all_labels_begin_with(folder):
    """The tokenizer has several tokens for a label, so a prompt ends with the first of them, and an answer of one token follows."""
    free, constrained = (
        AsyncRanker(folder, template="label", max_new_tokens=1, constrained=wanted) for wanted in (False, True)
    )
    longest = next(n for n in range(512, 0, -1) if fits(free, n))
    assert not fits(constrained, longest) and fits(constrained, longest - 1)


def fits(ranker, characters):
    try:
        return ranker.check("q", ["x" * characters, "y"]) is not None
    except Unrankable:
        return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"constrained": True}, "an endpoint does not give"),
        ({"per_call": "half"}, "an endpoint does not give"),
        ({"per_call": 0}, "half or all, got 0"),
        ({"per_call": "most"}, "half or all, got 'most'"),
    ],
)
def test_several_a_call_need_log_probs(asked, options, message):
    with pytest.raises(UserError, match=message):
        asked(drops(), **options)


def test_several_a_call_need_a_template_that_asks_for_a_label_alone(tmp_path):
    folder = tiny_models.save(tmp_path / "model")
    with pytest.raises(UserError, match="as label; think-label asks for more"):
        AsyncRanker(folder, per_call="all", max_new_tokens=8)
    assert AsyncRanker(folder, template="label", per_call="all", max_new_tokens=8).about()["constrained"]


def test_a_list_is_ranked_in_one_call():
    """The engine's order of labels is the order in which candidates leave."""

    class Engine:
        async def rank_labels(self, messages, count):
            assert count == 3
            return [2, 0, 1], Generation("", (7,), 20)

    episode = asyncio.run(
        run_episode(task(), load("label"), Engine(), EpisodeOptions(1, per_call="all", constrained=True))
    )
    assert (
        episode.ranking == ("1", "0", "2")
        and episode.calls == 1
        and (episode.prompt_tokens, episode.new_tokens) == (20, 1)
    )
    assert episode.steps[0].response == "[C], [A]" and not episode.malformed


def task():
    return RankingTask("t", "passage", "passage-5", "q", tuple(Candidate(str(i), f) for i, f in enumerate(FLEAS)), ())
