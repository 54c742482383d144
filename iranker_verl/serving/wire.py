"""What goes over the wire: the body of ``POST /v1/rerank`` and its answer, as Jina's, Cohere's and vLLM's clients know them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field

from iranker_verl.inference.ranker import Ranking
from iranker_verl.ranking.text import whole

LONGEST = 500  # characters of an error


def _text(document: Any) -> str:
    text = document.get("text") if isinstance(document, dict) else document
    if not isinstance(text, str):
        raise ValueError("a text is needed, or an object with a text")
    return whole(text)


class RerankRequest(BaseModel):
    """The body of a request.

    ``scenario`` and ``explain`` are ours. Clients send null, and a ``top_n`` of 0, for what they leave open. The fields of type
    ``Any`` are accepted because clients of Cohere, Jina, SiliconFlow, vLLM or LiteLLM send them, and have no effect: texts are never
    cut, and are refused where they are too long. A document's other fields are not read. Any other field is refused, as it would
    have no effect.
    """

    model_config = ConfigDict(extra="forbid")
    query: str
    # the first wrong document ends the reading: a million of them would make a million errors
    documents: Annotated[list[Annotated[str, BeforeValidator(_text)]], FailFast()] = Field(min_length=1)
    model: str | None = None
    top_n: int | None = Field(default=None, ge=0)
    return_documents: bool | None = True
    scenario: str | None = None
    explain: bool | None = False
    user: Any = None
    priority: Any = None
    truncation: Any = None
    truncate_prompt_tokens: Any = None
    max_chunks_per_doc: Any = None
    max_tokens_per_doc: Any = None
    max_chunk_per_doc: Any = None
    overlap_tokens: Any = None
    rank_fields: Any = None
    additional_data: Any = None
    return_embeddings: Any = None
    return_len: Any = None
    instruction: Any = None
    request_id: Any = None
    metadata: Any = None
    encoding_format: Any = None
    mm_processor_kwargs: Any = None
    chat_template_kwargs: Any = None
    activation: Any = None
    use_activation: Any = None
    softmax: Any = None


def answer(id: str, request: RerankRequest, ranking: Ranking, model: str, about: dict[str, Any]) -> dict[str, Any]:
    """Return the response's body.

    ``index`` is a document's index in the request; ``relevance_score`` is of
    :meth:`~iranker_verl.inference.ranker.Ranking.scores`.
    """
    scores = ranking.scores()
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index]} for index in ranking.order[: request.top_n or None]
    ]
    if request.return_documents is not False:
        for result in results:
            result["document"] = {"text": request.documents[result["index"]]}
    body = {
        "id": id,
        "model": model,
        "results": results,
        "usage": {"prompt_tokens": ranking.prompt_tokens, "total_tokens": ranking.prompt_tokens + ranking.new_tokens},
        "ranking": {
            **{name: about[name] for name in ("template_id", "template_hash")},
            **{"calls": len(ranking.steps), "malformed": ranking.malformed, "seconds": ranking.seconds},
            "empty_documents": ranking.empty,
        },
    }
    if request.explain:
        body["steps"] = ranking.explained()
    return body


def problem(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Return an error's body, as OpenAI's and vLLM's clients read it."""
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    text, where = whole(message[:LONGEST]), param and whole(param[:LONGEST])  # no request is repeated at length
    return {"error": {"message": text, "type": kind, "param": where, "code": status}}
