"""``iranker rank`` and ``iranker serve``: a trained model on one's own lists, from a file or over HTTP."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iranker_verl.cli.options import CONSTRAINED, ENDPOINT, MODEL, PER_CALL, per_call_of, with_options_of
from iranker_verl.errors import UserError
from iranker_verl.files import locked
from iranker_verl.options import check_options, option
from iranker_verl.ranking.text import printable
from iranker_verl.serving import MAX_CONCURRENT_REQUESTS, MAX_DOCUMENTS

if TYPE_CHECKING:
    from data_prep.custom.lists import Listed
    from iranker_verl.inference.ranker import AsyncRanker, Ranking

Scenario = Annotated[str, typer.Option(help="the prompt's words: passage, recommendation, routing, or a dataset's")]


@dataclass(frozen=True)
class RankerOptions:
    """How a model is asked, by ``rank`` and ``serve`` alike. Raise UserError for a value out of range."""

    endpoint: str | None = option(None, ENDPOINT)
    template: str | None = option(None, "prompt template [default: the model's, else think-label]")
    window: int | None = option(None, "most candidates of a prompt of an elimination [default: 20]", least=2)
    max_new_tokens: int | None = option(None, "cap of an answer [default: the model's, else 1024]", least=1)
    max_model_len: int | None = option(
        None, "tokens of prompt and answer [default: the model's, 8192 at most]", least=1
    )
    concurrency: int = option(64, "the engine's batch, or a server's requests at once", least=1)
    per_call: str = option("1", PER_CALL)
    constrained: bool = option(False, CONSTRAINED)

    def __post_init__(self) -> None:
        """Check the values."""
        check_options(self)

    def ranker(self, model: str) -> AsyncRanker:
        """Return the ranker of a model. Raise UserError for what cannot be used, before anything is loaded."""
        from iranker_verl.inference.endpoint import Endpoint
        from iranker_verl.inference.ranker import AsyncRanker

        options = vars(self) | {"per_call": per_call_of(self.per_call)}
        endpoint = options.pop("endpoint")
        return AsyncRanker(model if endpoint is None else Endpoint(endpoint, model), **options)


@with_options_of(RankerOptions)
def rank(
    model: Annotated[str, MODEL],
    documents: Annotated[list[str] | None, typer.Argument(help="texts to rank for --query; - reads lines")] = None,
    query: Annotated[str | None, typer.Option(help="what to rank DOCUMENTS for")] = None,
    lists: Annotated[
        Path | None, typer.Option(help="many lists: .jsonl or .csv as in docs/own-data.md, judged or not")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="for --lists: .jsonl of rankings; an interrupted run is resumed")
    ] = None,
    scenario: Scenario = "passage",
    *,
    options: RankerOptions,
) -> None:
    """Rank texts for a query, or all lists of a file, with a trained model."""
    if (lists is None) == (query is None) or (lists is None) != (out is None) or (lists is not None and documents):
        raise UserError("give --query and texts to rank them, or --lists and --out to rank a file's lists")
    from iranker_verl.inference.ranker import Ranker
    from iranker_verl.ranking.text import clean

    ranker = options.ranker(model)
    if lists is not None and out is not None:
        with locked(out):
            _rank_file(ranker, lists, out, scenario)
        return
    texts = _standard_input() if documents == ["-"] else [clean(text) for text in documents or []]
    if not texts:
        raise UserError("nothing to rank; give texts, or - to read them from standard input, one a line")
    ranker.check(str(query), texts, scenario)
    with Ranker(ranker) as opened:
        _print(opened.rank(str(query), texts, scenario=scenario), texts)


@with_options_of(RankerOptions)
def serve(
    model: Annotated[str, MODEL],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0 for all")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    name: Annotated[
        str | None, typer.Option(help="what clients call the model [default: its folder's or run's]")
    ] = None,
    max_concurrent_requests: Annotated[
        int, typer.Option(min=1, help="rankings under way or waiting; a further request gets 429")
    ] = MAX_CONCURRENT_REQUESTS,
    places: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    max_requests_per_client: Annotated[
        int | None, typer.Option(min=1, help="the same for each client's address [default: no limit of its own]")
    ] = None,
    max_documents: Annotated[int, typer.Option(min=1, help="documents of a request")] = MAX_DOCUMENTS,
    timeout: Annotated[float, typer.Option(min=1, help="seconds that a ranking may take; then 504")] = 600,
    *,
    options: RankerOptions,
) -> None:
    """Serve /v1/rerank. With IRANKER_API_KEY in the environment, clients have to send it as a bearer token."""
    from iranker_verl.serving.app import create_app
    from iranker_verl.serving.server import Server, bound_socket, is_loopback

    key = os.environ.get("IRANKER_API_KEY")
    if key is not None and not key.strip():
        raise UserError("IRANKER_API_KEY is empty; set it to a key, or unset it to serve without one")
    if places is not None:
        print("note: --places is called --max-concurrent-requests now", file=sys.stderr)
    with bound_socket(host, port) as listening:  # before the model is loaded
        if key is None and not is_loopback(host):
            print(f"warning: {host} is open to other machines without a key; set IRANKER_API_KEY", file=sys.stderr)
        app = create_app(
            options.ranker(model),
            name=name,
            max_concurrent_requests=places or max_concurrent_requests,
            max_requests_per_client=max_requests_per_client,
            max_documents=max_documents,
            timeout_s=timeout,
            api_key=key,
        )
        with suppress(KeyboardInterrupt):  # the server has closed all by then
            Server(app, host, port).run([listening])


def _standard_input() -> list[str]:
    """Return the lines of standard input that are not blank. Only line feeds end a line."""
    try:
        lines = sys.stdin.buffer.read().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: not UTF-8 ({error})") from error
    return [line for line in lines if line.strip()]


def _print(ranking: Ranking, texts: list[str]) -> None:
    from iranker_verl.cli.tables import show, table

    made = table("rank", "score", "text", left=0)
    made.columns[2].justify = "left"
    scores = ranking.scores()
    for rank, index in enumerate(ranking.order, 1):
        made.add_row(str(rank), f"{scores[index]:.3f}", printable(texts[index]))
    note = f"{len(ranking.steps)} calls of the model, {ranking.malformed} answers malformed, {ranking.seconds:.1f} s"
    if ranking.empty:
        note += f"; {ranking.empty} without a text, ranked last"
    show([("Best first", made, note)])


def _rank_file(ranker: AsyncRanker, path: Path, out: Path, scenario: str) -> None:
    """Rank all lists of a file; ``out`` appears when all is done."""
    import hashlib

    from data_prep.custom.lists import read_lists
    from iranker_verl.evaluation.journal import Journal
    from iranker_verl.inference.ranker import Ranker, Unrankable

    if out.suffix != ".jsonl":
        raise UserError(f"--out {out}: rankings are written as JSON lines; give a name that ends in .jsonl")
    listed = read_lists(path)
    for one in listed:  # before the model is loaded
        try:
            ranker.check(one.query, list(one.candidates.values()), scenario)
        except Unrankable as error:
            raise UserError(f"{path} row {one.row}: {error}") from error
    content = repr([(one.id, one.query, list(one.candidates.items())) for one in listed])
    hashed = hashlib.sha256(content.encode(errors="replace")).hexdigest()[:16]
    journal = Journal(out, ranker.about() | {"lists": len(listed), "lists_hash": hashed, "scenario": scenario})
    if journal.summary is not None:
        print(f"{out}: done before")
        return
    lines = {line["query_id"]: line for line in journal.lines}
    missing = [one for one in listed if one.id not in lines]
    started = told = time.monotonic()

    def on_done(index: int, ranking: Ranking) -> None:
        nonlocal told
        one = missing[index]
        lines[one.id] = _line(one, ranking)
        journal.append(lines[one.id])
        if len(lines) == len(listed) or time.monotonic() - told > 5:
            told = time.monotonic()
            print(f"{len(lines)}/{len(listed)} lists, {told - started:.0f} s", flush=True)

    if missing:
        print(f"{len(lines)}/{len(listed)} lists; loading {ranker.name}", flush=True)
        with journal, Ranker(ranker) as opened:
            opened.rank_all(
                [(one.query, list(one.candidates.values())) for one in missing], scenario=scenario, on_done=on_done
            )
    journal.finish([lines[one.id] for one in listed], {"seconds": time.monotonic() - started})
    malformed, calls, empty = (
        sum(line.get(name, 0) for line in lines.values()) for name in ("malformed", "calls", "empty")
    )
    last = f", {empty:,} texts empty, ranked last" if empty else ""
    print(f"{out}: {len(listed):,} lists, {calls:,} calls, {malformed:,} answers malformed{last}")


def _line(one: Listed, ranking: Ranking) -> dict[str, Any]:
    """Return a line of the result: ids, best first, and what the ranking cost."""
    ids = list(one.candidates)
    return {
        "query_id": one.id,
        "query": one.query,
        "ranking": [ids[index] for index in ranking.order],
        "calls": len(ranking.steps),
        "malformed": ranking.malformed,
        "prompt_tokens": ranking.prompt_tokens,
        "new_tokens": ranking.new_tokens,
        "seconds": ranking.seconds,
        "empty": ranking.empty,
        "steps": ranking.explained(),
    }
