"""Clients as they are: the requests that published clients send, and the clients themselves where they are installed."""

import importlib
import json
import socket

import pytest

pytest.importorskip("openai")

from tests.serving.running import BODY, FLEAS, serving

KEY = "k123"
BEST_FIRST = [2, 1, 0]


@pytest.fixture(scope="module")
def server():
    with serving(api_key=KEY, name="tiny") as both:
        yield both


def sent(client, path, body, *, authorization=f"Bearer {KEY}", content_type="application/json", method="POST"):
    """Send bytes as they are, and return the status and the body of the answer."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(content)}"]
    head += [f"Authorization: {authorization}"] if authorization else []
    head += [f"Content-Type: {content_type}"] if content_type else []
    with socket.create_connection((client.base_url.host, client.base_url.port), timeout=20) as line:
        line.sendall("\r\n".join([*head, "", ""]).encode() + content)
        received = b""
        while chunk := line.recv(65536):
            received += chunk
    top, _, rest = received.partition(b"\r\n\r\n")
    return int(top.split()[1]), rest


# Path and body of what each client sends, captured from cohere 5.21, langchain-cohere 0.6, litellm 1.110, llama-index 0.14, rerankers 0.10.
OBJECTS = [{"text": text, "title": "fleas"} for text in FLEAS]
REQUESTS = {
    "cohere, Client": ("/v1/rerank", {"top_n": 3}),
    "cohere, Client with objects": (
        "/v1/rerank",
        {"documents": OBJECTS, "rank_fields": ["title", "text"], "return_documents": True, "max_chunks_per_doc": 10},
    ),
    "cohere, ClientV2": ("/v2/rerank", {"top_n": 3, "max_tokens_per_doc": 4096, "priority": 0}),
    "langchain-cohere": ("/v2/rerank", {"top_n": 3, "max_tokens_per_doc": None}),
    "langchain-community, JinaRerank": ("/v1/rerank", {"top_n": 3}),
    "llama-index, CohereRerank": ("/v2/rerank", {"top_n": 3}),
    "llama-index, SiliconFlowRerank": (
        "/v1/rerank",
        {"top_n": 3, "return_documents": True, "max_chunks_per_doc": 1024, "overlap_tokens": 80},
    ),
    "litellm, cohere": ("/v2/rerank", {"top_n": 3, "return_documents": True}),
    "litellm, jina_ai": ("/v1/rerank", {"top_n": 3, "return_documents": True}),
    "litellm, hosted_vllm": ("/rerank", {"top_n": 3, "return_documents": True, "rank_fields": ["text"], "user": "u"}),
    "rerankers, APIRanker": ("/v1/rerank", {"top_n": 3, "return_documents": True}),
    "vLLM's own": (
        "/rerank",
        {"top_n": 0, "truncate_prompt_tokens": -1, "additional_data": {"a": [1]}, "priority": 0, "softmax": True},
    ),
}


@pytest.mark.parametrize("client_name", REQUESTS)
def test_requests_of_published_clients_are_answered(server, client_name):
    path, own = REQUESTS[client_name]
    status, content = sent(server[0], path, {"model": "tiny", **BODY, **own})
    assert status == 200, content
    assert [result["index"] for result in json.loads(content)["results"]] == BEST_FIRST


@pytest.mark.parametrize(
    "scheme", ["Bearer k123", "bearer k123", "BEARER k123", "Bearer  k123", "Bearer k123 ", "bearer\tk123"]
)
def test_the_scheme_has_any_case_and_blanks(server, scheme):
    """RFC 9110: schemes are case-insensitive. LiteLLM sent `bearer` until September 2025."""
    expected = 401 if "\t" in scheme else 200
    assert sent(server[0], "/v1/rerank", BODY, authorization=scheme)[0] == expected


@pytest.mark.parametrize(
    "wrong", [None, "", "Bearer", "Bearer ", "Bearer k12", "Bearer k1234", "Basic k123", "k123", "Bearer k123 x"]
)
def test_other_keys_are_refused(server, wrong):
    assert sent(server[0], "/v1/rerank", BODY, authorization=wrong)[0] == 401


@pytest.mark.parametrize("key", ["k123\n", " k123\r\n"])
def test_the_servers_key_may_end_in_a_line_feed(key):
    with serving(api_key=key) as (client, _):
        assert sent(client, "/v1/rerank", BODY)[0] == 200


@pytest.mark.parametrize(
    "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=UTF-8"]
)
def test_a_body_is_json_whatever_its_type_is_called(server, content_type):
    """`curl -d` without -H calls it a form."""
    assert sent(server[0], "/v1/rerank", BODY, content_type=content_type)[0] == 200


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_body_may_be_in_any_encoding_of_json(server, encoding):
    assert sent(server[0], "/v1/rerank", json.dumps(BODY).encode(encoding))[0] == 200


def test_health_and_metrics_answer_to_head(server):
    for path in ("/health", "/metrics"):
        assert sent(server[0], path, b"", authorization=None, method="HEAD") == (200, b"")


def test_an_empty_document_is_ranked_last_counted_and_said(server):
    documents = ["", *FLEAS, {"text": " \n"}]
    status, content = sent(server[0], "/v1/rerank", BODY | {"documents": documents})
    body = json.loads(content)
    assert status == 200 and [result["index"] for result in body["results"]] == [3, 2, 1, 0, 4]
    assert body["ranking"]["empty_documents"] == 2 and body["ranking"]["calls"] == 2
    assert "iranker_empty_documents_total 2.0" in server[0].get("/metrics").text


def test_a_field_that_nobody_sends_is_refused(server):
    assert "topn" in json.loads(sent(server[0], "/v1/rerank", BODY | {"topn": 3})[1])["error"]["message"]


def real(name):
    """Import a client, or skip: its many dependencies are not among this project's."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name} is not installed")


def test_the_cohere_client(server):
    cohere = real("cohere")
    for made in (cohere.Client, cohere.ClientV2):
        client = made(KEY, base_url=str(server[0].base_url))
        found = client.rerank(model="tiny", query=BODY["query"], documents=FLEAS, top_n=2)
        assert [result.index for result in found.results] == BEST_FIRST[:2]


@pytest.mark.parametrize("provider", ["cohere", "jina_ai", "hosted_vllm"])
def test_litellm(server, provider):
    litellm = real("litellm")
    base = f"{server[0].base_url}/v1/rerank".replace("//v1", "/v1")
    found = litellm.rerank(
        model=f"{provider}/tiny", query=BODY["query"], documents=FLEAS, top_n=2, api_base=base, api_key=KEY
    )
    assert [result["index"] for result in found.results] == BEST_FIRST[:2]


def test_langchain_cohere(server):
    real("langchain_cohere")
    rerank = importlib.import_module("langchain_cohere").CohereRerank(
        model="tiny", cohere_api_key=KEY, base_url=str(server[0].base_url), top_n=2
    )
    assert [found["index"] for found in rerank.rerank(FLEAS, BODY["query"])] == BEST_FIRST[:2]


def test_llama_index(server):
    module = real("llama_index.postprocessor.cohere_rerank")
    schema = importlib.import_module("llama_index.core.schema")
    nodes = [schema.NodeWithScore(node=schema.TextNode(text=text), score=0.0) for text in FLEAS]
    rerank = module.CohereRerank(model="tiny", api_key=KEY, base_url=str(server[0].base_url), top_n=2)
    found = rerank.postprocess_nodes(nodes, query_str=BODY["query"])
    assert [node.node.text for node in found] == [FLEAS[place] for place in BEST_FIRST[:2]]


def test_rerankers(server):
    ranker = real("rerankers.models.api_rankers").APIRanker("tiny", KEY, api_provider="cohere")
    ranker.url = f"{server[0].base_url}/v1/rerank".replace("//v1", "/v1")
    assert [found.doc_id for found in ranker.rank(BODY["query"], FLEAS).results] == BEST_FIRST
