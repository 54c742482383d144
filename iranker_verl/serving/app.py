"""The application: ``POST /v1/rerank``, ``GET /v1/models``, ``/health`` and ``/metrics`` (Prometheus).

    Server(create_app(AsyncRanker("runs/tiny/model")), "127.0.0.1", 8000).run()

One model, one process. Requests run side by side and are batched by vLLM. Where ``max_concurrent_requests`` rankings are under
way, a further request gets 429 at once, so that no queue grows without end. When a client hangs up, its ranking is cancelled. Every
other request gets an answer: 503 where the engine stops or the server ends, 504 after ``timeout_s``. Errors have OpenAI's form
(:func:`.wire.problem`). No text of a request is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, asynccontextmanager
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from iranker_verl import __version__
from iranker_verl.errors import UserError
from iranker_verl.inference.endpoint import Endpoint, Refused
from iranker_verl.inference.episode import cancel_and_wait
from iranker_verl.inference.ranker import AsyncRanker, Ranking, Unrankable
from iranker_verl.serving import MAX_CONCURRENT_REQUESTS, MAX_DOCUMENTS
from iranker_verl.serving.access import AccessControl, Admission, Bodies, Refusal, refused
from iranker_verl.serving.metrics import Metrics
from iranker_verl.serving.watch import EngineWatch
from iranker_verl.serving.wire import RerankRequest, answer

LOG = logging.getLogger("uvicorn.error")
HUNG_UP = 499  # nobody reads it; it is counted
TIMEOUT_S = 600.0  # of a request


class Held(JSONResponse):
    """A response that keeps a ranking's place until the client has read it, so that unread ones do not fill the memory."""

    def __init__(self, content: Any, place: ExitStack) -> None:
        super().__init__(content)
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the body, then its end, which uvicorn takes when nothing waits to be sent any more."""
        with self._place:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            await send({"type": "http.response.body"})


def create_app(
    ranker: AsyncRanker,
    *,
    name: str | None = None,
    max_concurrent_requests: int = MAX_CONCURRENT_REQUESTS,
    max_requests_per_client: int | None = None,
    max_documents: int = MAX_DOCUMENTS,
    timeout_s: float = TIMEOUT_S,
    api_key: str | None = None,
) -> FastAPI:
    """Return the application, which opens ``ranker`` as it starts and closes it as it ends.

    Args:
        ranker: The model.
        name: What clients call the model; by default the model's own name.
        max_concurrent_requests: Rankings under way; further requests get 429.
        max_requests_per_client: The same for each client's address; by default no fewer.
        max_documents: Documents of a request.
        timeout_s: Seconds that a ranking may take.
        api_key: With it, all but ``/health`` and ``/metrics`` needs it as a bearer token.
    """
    about, name = ranker.about(), name or ranker.name
    metrics, watch = Metrics(), EngineWatch(ranker)
    admission = Admission(max_concurrent_requests, max_requests_per_client)
    bodies = Bodies()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with ranker:
            watching = asyncio.create_task(watch.run())
            try:
                yield
            finally:
                await cancel_and_wait(watching)
                bodies.close()

    app = FastAPI(title="IRanker", version=__version__, lifespan=lifespan)
    app.state.stopping = asyncio.Event()
    app.add_middleware(AccessControl, api_key=api_key, counted=metrics.answered)

    @app.exception_handler(HTTPException)
    async def no_such_route(_: Request, error: HTTPException) -> Response:
        return refused(error.status_code, str(error.detail), headers=error.headers)

    schema = {"content": {"application/json": {"schema": RerankRequest.model_json_schema()}}, "required": True}

    @app.post("/rerank", openapi_extra={"requestBody": schema})  # vLLM's server knows all three
    @app.post("/v1/rerank", openapi_extra={"requestBody": schema})
    @app.post("/v2/rerank", openapi_extra={"requestBody": schema})
    async def rerank(request: Request) -> Response:
        try:
            response = await ranked(request, checked(await bodies.read(request)))
        except ClientDisconnect:
            response = Response(status_code=HUNG_UP)
        except Refusal as refusal:
            response = refusal.response()
        metrics.answered(response.status_code)
        return response

    def checked(content: Any) -> RerankRequest:
        try:
            body = RerankRequest.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise Refusal(400, f"{where[:100] or 'body'}: {first['msg']}", where or None) from None
        if body.model not in (None, name):
            raise Refusal(404, f"no model {body.model[:100]!r} here; this server has {name!r}", "model")
        if len(body.documents) > max_documents:
            raise Refusal(400, f"{len(body.documents)} documents are more than {max_documents}", "documents")
        return body

    async def ranked(request: Request, body: RerankRequest) -> Response:
        client = request.client.host if request.client else ""
        characters = len(body.query) + sum(map(len, body.documents))
        with ExitStack() as place, metrics.one_more():
            place.enter_context(admission.admitted(client, characters))
            work = ranker.rank(body.query, body.documents, scenario=body.scenario or "passage", on_step=metrics.called)
            try:
                ranking = await unless_ended(request, work)
            except (Refusal, ClientDisconnect):
                raise
            except Exception as error:
                raise await failure(error) from error
            metrics.ranked(ranking)
            return Held(answer(f"rerank-{uuid4().hex}", body, ranking, name, about), place.pop_all())

    async def unless_ended(request: Request, work: Coroutine[Any, Any, Ranking]) -> Ranking:
        """Return what ``work`` returns. It is cancelled, with Refusal or ClientDisconnect, where nobody waits for it any more."""
        job = asyncio.ensure_future(work)
        gone, failed, stopping = ends = [
            asyncio.ensure_future(end) for end in (_hung_up(request), watch.failed.wait(), app.state.stopping.wait())
        ]
        try:
            await asyncio.wait((job, *ends), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
            if gone.done():
                raise ClientDisconnect
            if failed.done():
                raise Refusal(503, str(watch.reason))
            if stopping.done():
                raise Refusal(503, "the server is ending; use another one")
            raise Refusal(504, f"the ranking was not done within {timeout_s:.0f} seconds")
        finally:
            await cancel_and_wait(job, *ends)

    async def failure(error: Exception) -> Refusal:
        """Return the refusal that a client gets.

        The address and the words of a server behind --endpoint are not for clients, and its words, which may repeat a request's
        texts, not for the log either.
        """
        if isinstance(error, UserError) and not isinstance(error, Unrankable) and isinstance(ranker.model, Endpoint):
            LOG.error("the model's server: %s", error.summary if isinstance(error, Refused) else error)
            if isinstance(error, Refused) and error.status == 400:
                return Refusal(400, "the model's server refuses what it was asked; the texts may be too long")
            return Refusal(502, "the model's server does not answer as it should")
        if isinstance(error, UserError):  # also a prompt a few tokens longer than it was measured
            return Refusal(400, str(error))
        await watch.check()
        if watch.reason:
            return Refusal(503, watch.reason)
        LOG.error("a ranking failed", exc_info=error)
        return Refusal(500, f"an error of the server's own ({type(error).__name__}); its log says more")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        shown = {name: value for name, value in about.items() if name not in ("model", "endpoint")}
        return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "iranker", **shown}]}

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        return refused(503, watch.reason) if watch.reason else Response(status_code=200)

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def prometheus() -> Response:
        return Response(metrics.text(), media_type=metrics.media_type)

    return app


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
