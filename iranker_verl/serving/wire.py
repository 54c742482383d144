"""What goes over the wire: the body of ``POST /v1/rerank`` and its answer, as Jina's, Cohere's and vLLM's clients know them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from iranker_verl.inference.ranker import Ranking


def whole(text: str) -> str:
    """Without halves of characters, which JSON can hold and an answer cannot: each becomes a question mark."""
    return text.encode(errors="replace").decode()


class Document(BaseModel):
    """A document that is not a plain string. Other fields (an image, a title) would have no effect, and are refused."""

    model_config = ConfigDict(extra="forbid")
    text: str


class RerankRequest(BaseModel):
    """``scenario`` and ``explain`` are ours; an unknown field is refused, as it would have no effect."""

    model_config = ConfigDict(extra="forbid")
    query: str
    documents: list[str | Document] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(default=None, ge=1)
    return_documents: bool = True
    scenario: str = "passage"
    explain: bool = False

    def texts(self) -> list[str]:
        """The documents' texts."""
        return [whole(document if isinstance(document, str) else document.text) for document in self.documents]


def answer(id: str, request: RerankRequest, ranking: Ranking, about: dict[str, Any]) -> dict[str, Any]:
    """The response's body. ``index`` is a document's place in the request; of ``relevance_score`` see
    :meth:`~iranker_verl.inference.ranker.Ranking.scores`."""
    texts, scores = request.texts(), ranking.scores()
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": scores[place]} for place in ranking.order[: request.top_n]
    ]
    if request.return_documents:
        for result in results:
            result["document"] = {"text": texts[result["index"]]}
    body = {
        "id": id,
        "model": about["model"],
        "results": results,
        "usage": {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens + ranking.new_tokens},
        "ranking": {
            **{name: about[name] for name in ("template_id", "template_hash")},
            **{"calls": len(ranking.steps), "malformed": ranking.malformed, "seconds": ranking.seconds},
        },
    }
    if request.explain:
        body["steps"] = ranking.explained()
    return body


def problem(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """An error's body, as OpenAI's and vLLM's clients read it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": whole(message), "type": kind, "param": param and whole(param), "code": status}}
