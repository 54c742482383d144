"""The server: ``POST /v1/rerank``, ``GET /v1/models``, ``/health`` and ``/metrics`` (Prometheus).

    uvicorn.run(create_app(AsyncRanker("runs/tiny/model")))

One model, one process. Requests are played side by side and batched by vLLM; who comes when ``places`` are taken gets 429 at
once and is asked to try again, so that nobody waits in a queue without end. Who hangs up stops costing: their episode ends
at the step that it is in. An error has OpenAI's form (:func:`.wire.problem`), and no request's text is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from iranker_verl import __version__
from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint, Refused
from iranker_verl.inference.episode import cancel_and_wait
from iranker_verl.inference.ranker import AsyncRanker, Ranking, Unrankable
from iranker_verl.serving import MAX_DOCUMENTS, PLACES
from iranker_verl.serving.access import Guard, refused
from iranker_verl.serving.metrics import Metrics
from iranker_verl.serving.wire import RerankRequest, answer

LOG = logging.getLogger("uvicorn.error")
HUNG_UP = 499  # nobody reads it; it is counted


def create_app(
    ranker: AsyncRanker,
    *,
    name: str | None = None,
    places: int = PLACES,
    max_documents: int = MAX_DOCUMENTS,
    api_key: str | None = None,
) -> FastAPI:
    """The application; it opens ``ranker`` as it starts and closes it as it ends. ``name`` is what clients call the model, by
    default the model's own; with ``api_key``, ``/v1`` is for those only who send it as a bearer token."""
    about, name = ranker.about(), name or ranker.name
    metrics = Metrics()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ranker:
            yield

    app = FastAPI(title="IRanker", version=__version__, lifespan=lifespan)
    app.add_middleware(Guard, api_key=api_key, counted=metrics.answered)

    async def died() -> str | None:
        try:
            await ranker.check_alive()
        except Exception as error:  # vLLM does not say of what
            return f"the engine has died ({type(error).__name__}); restart the server"
        return None

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        metrics.answered(400)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        return refused(400, f"{where or 'body'}: {first['msg']}", where or None)

    @app.exception_handler(HTTPException)
    async def no_such_route(_: Request, error: HTTPException) -> Response:
        return refused(error.status_code, str(error.detail), headers=error.headers)

    @app.post("/rerank")  # vLLM's server knows all three
    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def rerank(body: RerankRequest, request: Request) -> Response:
        response = await _rerank(body, request)
        metrics.answered(response.status_code)
        return response

    async def _rerank(body: RerankRequest, request: Request) -> Response:
        if body.model not in (None, name):
            return refused(404, f"no model {body.model!r} here; this server has {name!r}", "model")
        if len(body.documents) > max_documents:
            return refused(400, f"{len(body.documents)} documents are more than {max_documents}", "documents")
        if metrics.under_way >= places:
            message = f"{places} rankings are under way already; try again in a moment"
            return refused(429, message, headers={"Retry-After": "1"})
        asked = ranker.rank(body.query, body.documents, scenario=body.scenario or "passage", on_step=metrics.called)
        with metrics.one_more():
            try:
                ranking = await _while_connected(request, asked)
            except Exception as error:
                return await failed(error)
        if ranking is None:
            return Response(status_code=HUNG_UP)
        metrics.ranked(ranking.seconds)
        return JSONResponse(answer(f"rerank-{uuid4().hex}", body, ranking, name, about))

    async def failed(error: Exception) -> Response:
        """What a client is told. Of a server behind --endpoint, whose address is nobody's business, only the log says more."""
        if isinstance(error, Unrankable):
            return refused(400, str(error))
        if isinstance(error, UserError) and isinstance(ranker.model, Endpoint):
            LOG.error("%s", error)
            if isinstance(error, Refused) and error.status == 400:
                return refused(400, "the model's server refuses what it was asked; the texts may be too long")
            return refused(502, "the model's server does not answer as it should")
        if isinstance(error, UserError):  # a prompt a few tokens longer than it was measured
            return refused(400, str(error))
        if reason := await died():
            return refused(503, reason)
        LOG.error("a ranking failed", exc_info=error)
        return refused(500, f"an error of the server's own ({type(error).__name__}); its log says more")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        shown = {name: value for name, value in about.items() if name not in ("model", "endpoint")}
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "iranker", **shown}]}

    @app.get("/health")
    async def health() -> Response:
        reason = await died()
        return refused(503, reason) if reason else Response(status_code=200)

    @app.get("/metrics")
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)

    return app


async def _while_connected(request: Request, ranking: Awaitable[Ranking]) -> Ranking | None:
    """The ranking, or None where the client hung up before it was there; it is cancelled then."""
    work = asyncio.ensure_future(ranking)
    gone = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        await cancel_and_wait(work, gone)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
