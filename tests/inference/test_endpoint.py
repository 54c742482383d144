"""A model behind a server: what is sent, what is read, what is tried again and what is given up, with a reason."""

import asyncio
import pickle

import pytest

from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint, Refused
from tests.fake_openai import FakeServer, answer

pytest.importorskip("openai")
MESSAGES = [{"role": "user", "content": "Exclude the worst:"}]


def ask(server, times=1, **options):
    retries = options.pop("retries", 3)

    async def main():
        async with Endpoint(server.url, "fake", retries=retries) as endpoint:
            return await asyncio.gather(*(endpoint.ask(MESSAGES, 8, **options) for _ in range(times)))

    with server.serving():
        return asyncio.run(main())


def test_what_is_sent_and_read(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    server = FakeServer(lambda request, n: (200, answer("[B] it is")))
    [greedy] = ask(server)
    assert (greedy.text, greedy.prompt_tokens, greedy.new_tokens) == ("[B] it is", 7, 3)
    [request] = server.requests
    assert request == {"model": "fake", "messages": MESSAGES, "max_tokens": 8, "temperature": 0.0}
    assert server.keys == ["Bearer a key"]


def test_a_sampled_call_sends_its_seed():
    server = FakeServer(lambda request, n: (200, answer("[B]")))
    ask(server, temperature=0.7, seed=5)
    assert (server.requests[0]["temperature"], server.requests[0]["seed"]) == (0.7, 5)


def test_no_key_is_needed_where_the_server_needs_none(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ask(FakeServer(lambda request, n: (200, answer("[A]"))))[0].text == "[A]"


def test_hidden_reasoning_without_an_answer_is_an_empty_answer():
    [generation] = ask(FakeServer(lambda request, n: (200, answer(None))))
    assert generation.text == ""


def test_what_passes_by_itself_is_tried_again():
    failures = {1: 429, 2: 500}
    server = FakeServer(lambda request, n: (failures.get(n, 200), answer("[A]")))
    assert ask(server)[0].text == "[A]"
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "body", "message", "tries"),
    [
        (429, {"error": {"message": "slow down"}}, "slow down.*--concurrency", 2),
        (503, {"error": {"message": "no room"}}, "no room.*continues from here", 2),
        (401, {"error": {"message": "who?"}}, "who.*OPENAI_API_KEY", 1),
        (404, {"error": {"message": "no such model"}}, "'fake' one of its models", 1),
        (400, {"error": {"message": "the context is 4096 tokens"}}, "the context is 4096 tokens", 1),
        (200, answer("x", choices=[]), "no choices", 1),
        (200, answer("x", usage=None), "usage.prompt_tokens", 1),
        (200, b"<html>a proxy</html>", "not OpenAI's form|no choices", 1),
    ],
)
def test_given_up_with_a_reason(status, body, message, tries):
    server = FakeServer(lambda request, n: (status, body))
    with pytest.raises(UserError, match=message):
        ask(server, retries=1)
    assert len(server.requests) == tries


def test_a_refusal_comes_whole_from_another_process():
    """A shard's reaches the user over Ray."""
    refused = pickle.loads(pickle.dumps(Refused("the server says no", 400, "HTTP 400")))
    assert type(refused) is Refused and str(refused) == "the server says no"
    assert (refused.status, refused.summary) == (400, "HTTP 400")


def in_parts(*parts):
    return answer(
        "", choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": parts}}]
    )


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([{"type": "text", "text": "[A]"}], "[A]"),
        (
            [
                {"type": "reasoning", "text": "hm [C]"},
                {"type": "text", "text": "[A] it"},
                {"type": "text", "text": " is"},
            ],
            "[A] it is",
        ),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "[C]"}]}, {"type": "text", "text": "[A]"}], "[A]"),
        ([{"type": "output_text", "text": "[A]", "annotations": []}], "[A]"),
        ([{"text": "[A]"}, "!"], "[A]!"),
        ([{"type": "text", "text": None}, {"type": "image_url"}], ""),
        ([], ""),
    ],
)
def test_content_in_parts_is_the_texts_of_its_text_parts(parts, text):
    [generation] = ask(FakeServer(lambda request, n: (200, in_parts(*parts))))
    assert generation.text == text


def insists(request, number):
    """Refuse as OpenAI's reasoning models do."""
    if "max_tokens" in request:
        words = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        return 400, {"error": {"message": words, "param": "max_tokens", "code": "unsupported_parameter"}}
    if request.get("temperature", 1) != 1:
        words = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
        return 400, {"error": {"message": words, "param": "temperature", "code": "unsupported_value"}}
    return 200, answer("[A]")


def test_what_a_server_insists_on_is_done_and_remembered():
    server = FakeServer(insists)

    async def main():
        async with Endpoint(server.url, "fake", retries=0) as endpoint:
            return [(await endpoint.ask(MESSAGES, 8)).text for _ in range(3)]

    with server.serving():
        assert asyncio.run(main()) == ["[A]"] * 3
    assert len(server.requests) == 5  # two refusals, once
    assert server.requests[-1] == {"model": "fake", "messages": MESSAGES, "max_completion_tokens": 8}


def test_calls_that_are_refused_at_once_are_all_asked_anew():
    server = FakeServer(insists)
    assert [g.text for g in ask(server, times=8)] == ["[A]"] * 8


def test_another_refusal_that_repeats_the_text_changes_nothing():
    server = FakeServer(lambda request, n: (400, {"error": {"message": "too long: 'the temperature of water'"}}))
    with pytest.raises(Refused, match="too long"):
        ask(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["a key\n", " a key\r\n"])
def test_a_key_may_end_in_a_line_feed(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    server = FakeServer(lambda request, n: (200, answer("[A]")))
    ask(server)
    assert server.keys == ["Bearer a key"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_carry_no_text_to_another_server(status):
    other = FakeServer(lambda request, n: (200, answer("[A]")))
    with other.serving():
        server = FakeServer(lambda request, n: (status, {}, {"Location": f"{other.url}/chat/completions"}))
        with pytest.raises(Refused, match="redirects, which is not followed"):
            ask(server)
    assert other.requests == [] and len(server.requests) == 1


def test_a_servers_words_have_no_control_characters_and_the_summary_has_no_words():
    words = "secret text \x1b[31m\r\n\x07 and more"
    with pytest.raises(Refused) as found:
        ask(FakeServer(lambda request, n: (422, {"error": {"message": words}})))
    assert "secret text" in str(found.value) and str(found.value).isprintable()
    assert "secret" not in found.value.summary and "422" in found.value.summary


def test_nobody_there():
    server = FakeServer(lambda request, n: (200, answer("x")))
    with server.serving():
        pass  # the port is free again

    async def main():
        async with Endpoint(server.url, "fake", retries=1) as endpoint:
            await endpoint.ask(MESSAGES, 8)

    with pytest.raises(UserError, match=r"no answer after 2 tries.*is the server up"):
        asyncio.run(main())


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http:///v1", "model"])
def test_addresses_that_are_none(url):
    with pytest.raises(UserError, match="an address like"):
        Endpoint(url, "fake")


def test_an_address_never_shows_a_password():
    with pytest.raises(UserError, match="OPENAI_API_KEY") as error:
        Endpoint("http://me:secret@host/v1", "fake")
    assert "secret" not in str(error.value)
