"""/v1/rerank over a model that is none: what clients get, who is refused, and what is counted."""

import json
import logging
import threading
import time

import pytest

pytest.importorskip("openai")

from iranker_verl.inference import AsyncRanker
from iranker_verl.ranking.templates import load
from iranker_verl.serving.access import MAX_BYTES
from tests.fake_openai import answer
from tests.serving.running import BODY, FLEAS, begun, counted, exclude_first, refused, serving


@pytest.fixture(scope="module")
def server():
    with serving() as both:
        yield both


def test_an_answer(server):
    client, _ = server
    body = client.post("/v1/rerank", json=BODY | {"model": "fake"}).json()
    assert body["id"].startswith("rerank-") and body["model"] == "fake"
    assert body["results"] == [
        {"index": 2, "relevance_score": 1.0, "document": {"text": FLEAS[2]}},
        {"index": 1, "relevance_score": 0.5, "document": {"text": FLEAS[1]}},
        {"index": 0, "relevance_score": 0.0, "document": {"text": FLEAS[0]}},
    ]
    assert body["usage"] == {"prompt_tokens": 14, "total_tokens": 16}
    template = load("think-label")
    assert body["ranking"].pop("seconds") >= 0
    assert body["ranking"] == {
        **{"template_id": template.id, "template_hash": template.hash},
        **{"calls": 2, "malformed": 0, "empty_documents": 0},
    }
    assert "steps" not in body


def test_options(server):
    client, behind = server
    objects = [{"text": text} for text in FLEAS]
    body = client.post(
        "/v1/rerank",
        json=BODY
        | {"documents": objects, "top_n": 1, "return_documents": False, "explain": True, "scenario": "routing"},
    ).json()
    assert body["results"] == [{"index": 2, "relevance_score": 1.0}]
    assert [(s["pool"], s["excluded"]) for s in body["steps"]] == [([0, 1, 2], 0), ([1, 2], 1)]
    assert "LLM" in behind.requests[-1]["messages"][-1]["content"]
    assert (
        client.post("/v1/rerank", json=BODY | {"documents": ["alone"], "top_n": 9}).json()["usage"]["total_tokens"] == 0
    )


def test_null_zero_titles_and_other_paths_are_accepted(server):
    """vLLM's default top_n, nulls for what is left open, objects with a title, fields that change nothing here, other paths."""
    client, behind = server
    documents = [{"text": text, "title": "of no use"} for text in FLEAS]
    null = dict.fromkeys(("model", "return_documents", "explain", "scenario", "user"))
    more = {"top_n": 0, "truncation": True, "max_chunks_per_doc": 3, "truncate_prompt_tokens": 9}
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        body = client.post(path, json=BODY | null | more | {"documents": documents}).json()
        assert [result["document"]["text"] for result in body["results"]] == FLEAS[::-1]
    assert "of no use" not in json.dumps(behind.requests)


def test_a_million_wrong_documents_cost_no_more_than_one(server):
    client, _ = server
    began = time.monotonic()
    refused(client.post("/v1/rerank", json=BODY | {"documents": [1] * 1_000_000}), 400)
    assert time.monotonic() - began < 5  # it took half a minute and 4 GB


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"documents": []}, "documents: List should have at least 1 item"),
        ({"documents": ["x", 1]}, "documents.1: Value error, a text is needed, or an object with a text"),
        ({"documents": [{"title": "x"}]}, "documents.0: Value error, a text is needed"),
        ({"query": ""}, "the query is empty"),
        ({"query": None}, "query: Input should be a valid string"),
        ({"top_n": -1}, "top_n: Input should be greater than or equal to 0"),
        ({"scenario": "films"}, "scenario 'films': choose one of"),
        ({"topn": 3}, "topn: Extra inputs are not permitted"),
        ({"documents": ["x"] * 1001}, "1001 documents are more than 1000"),
    ],
)
def test_a_wrong_body(server, change, words):
    client, behind = server
    before = len(behind.requests), counted(client, 'iranker_requests_total{status="400"}')
    assert words in refused(client.post("/v1/rerank", json=BODY | change), 400)
    assert (len(behind.requests), counted(client, 'iranker_requests_total{status="400"}')) == (before[0], before[1] + 1)


def test_other_mistakes(server):
    client, _ = server
    assert "this server has 'fake'" in refused(client.post("/v1/rerank", json=BODY | {"model": "gpt"}), 404)
    cut = client.post("/v1/rerank", content=b'{"query": ', headers={"Content-Type": "application/json"})
    assert "JSON decode error" in refused(cut, 400)
    refused(client.get("/v1/nothing"), 404)
    only = client.get("/v1/rerank")
    refused(only, 405)
    assert only.headers["Allow"] == "POST"
    both = begun(client, 2, b"", "Transfer-Encoding: chunked\r\n")
    with both as line:
        assert line.recv(100).startswith((b"HTTP/1.1 400", b"HTTP/1.1 411"))
    assert "Content-Length" in refused(client.post("/v1/rerank", content=iter([b"{}"])), 411)
    with begun(client, MAX_BYTES + 1, b"{") as line:  # refused before its body has come
        assert line.recv(100).startswith(b"HTTP/1.1 413")


def test_half_a_character_is_no_error_of_the_servers(server):
    client, _ = server
    head = {"Content-Type": "application/json"}
    cut = client.post("/v1/rerank", content=b'{"query": "q \\ud83d", "documents": ["x \\ud83d", "y"]}', headers=head)
    assert {result["document"]["text"] for result in cut.json()["results"]} == {"x \ufffd", "y"}
    named = client.post("/v1/rerank", content=b'{"\\ud83d": 1, "query": "q", "documents": ["x"]}', headers=head)
    refused(named, 400)


def test_an_error_of_its_own_is_told_and_logged(monkeypatch, caplog):
    async def wrong(*_, **__):
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(AsyncRanker, "rank", wrong)
    with serving() as (client, _):
        logging.getLogger("uvicorn.error").addHandler(caplog.handler)
        assert "ZeroDivisionError" in refused(client.post("/v1/rerank", json=BODY), 500)
        assert "of ours" in caplog.text
        assert client.get("/health").status_code == 200


def test_what_is_served(server):
    client, _ = server
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["template_hash"]) == ("fake", load("think-label").hash)
    assert client.get("/health").status_code == 200


def test_the_key():
    with serving(api_key="a secret", name="mine") as (client, behind):
        for sent in ({}, {"Authorization": "Bearer a secre"}, {"Authorization": "a secret"}):
            refused(client.post("/v1/rerank", json=BODY, headers=sent), 401)
            refused(client.get("/v1/models", headers=sent), 401)
        assert counted(client, 'iranker_requests_total{status="401"}') == 6
        assert behind.requests == [] and client.get("/health").status_code == 200
        answered = client.post("/v1/rerank", json=BODY, headers={"Authorization": "Bearer a secret"})
        assert answered.json()["model"] == "mine"


def test_the_key_behind_a_proxys_path():
    with serving(api_key="a secret", root_path="/proxied") as (client, _):
        refused(client.post("/v1/rerank", json=BODY), 401)
        refused(client.get("/openapi.json"), 401)
        assert client.get("/health").status_code == 200


def test_what_is_counted():
    with serving(lambda request, number: (200, answer("hm"))) as (client, _):
        client.post("/v1/rerank", json=BODY)
        assert counted(client, "iranker_model_calls_total") == counted(client, "iranker_malformed_answers_total") == 2
        assert counted(client, 'iranker_tokens_total{kind="prompt"}') == 14
        assert (
            counted(client, "iranker_ranking_seconds_count") == 1 and counted(client, "iranker_rankings_running") == 0
        )


def test_a_model_that_fails():
    """Its address and its words are for the log; that the texts may be too long is for the client."""
    for status, code, words in ((401, 502, "does not answer as it should"), (400, 400, "may be too long")):
        with serving(lambda request, number, s=status: (s, {"error": {"message": "out of order"}})) as (client, behind):
            told = refused(client.post("/v1/rerank", json=BODY), code)
            assert words in told and "out of order" not in told and behind.url not in told
            assert counted(client, f'iranker_requests_total{{status="{code}"}}') == 1


def test_requests_above_the_limit_get_429():
    """Who comes too late is told so at once, and nobody who is in loses anything."""
    free = threading.Event()

    def waits(request, number):
        free.wait(20)
        return exclude_first(request, number)

    with serving(waits, max_concurrent_requests=2) as (client, _):
        found = []

        def ask():
            found.append(client.post("/v1/rerank", json=BODY).status_code)

        waiting = [threading.Thread(target=ask) for _ in range(2)]
        for thread in waiting:
            thread.start()
        until = time.monotonic() + 20
        while counted(client, "iranker_rankings_running") < 2:
            assert time.monotonic() < until
            time.sleep(0.02)
        late = client.post("/v1/rerank", json=BODY)
        assert "try again" in refused(late, 429) and late.headers["Retry-After"] == "1"
        free.set()
        for thread in waiting:
            thread.join(20)
        assert found == [200, 200]
        assert client.post("/v1/rerank", json=BODY).status_code == 200


def test_a_client_that_hangs_up_ends_its_ranking():
    def slowly(request, number):
        time.sleep(0.1)
        return exclude_first(request, number)

    with serving(slowly) as (client, behind):
        body = json.dumps({"query": "q", "documents": [f"text {n}" for n in range(200)]}).encode()
        with begun(client, len(body), body):
            until = time.monotonic() + 20
            while len(behind.requests) < 3:
                assert time.monotonic() < until
                time.sleep(0.02)
        until = time.monotonic() + 20
        while counted(client, "iranker_rankings_running") > 0:
            assert time.monotonic() < until
            time.sleep(0.02)
        asked = len(behind.requests)
        time.sleep(0.5)
        assert len(behind.requests) == asked < 100
        assert counted(client, 'iranker_requests_total{status="499"}') == 1
        assert counted(client, "iranker_model_calls_total") in (asked - 1, asked)  # what it cost until then
