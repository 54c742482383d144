"""A model behind an OpenAI-compatible server (vLLM's, llama.cpp's, OpenAI's …), asked as our own engine is.

    async with Endpoint("http://localhost:8000/v1", "qwen") as engine:
        answer = await engine.ask(messages, max_new_tokens=8)

The key is read from ``OPENAI_API_KEY``; a server without keys needs none. What passes by itself (429, 5xx, a broken
connection) is tried again with growing pauses by the ``openai`` client.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from iranker_verl.errors import UserError, first_line
from iranker_verl.inference.engine import Generation
from iranker_verl.ranking.text import whole

RETRIES = 6  # half a second, doubled up to eight: half a minute in all
TIMEOUT_S = 600.0  # a long thought on a busy server
NO_KEY = "none"  # the client insists on one; servers without keys ignore it


class Refused(UserError):
    """The server answered with an error. ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[Refused], tuple[str, int]]:
        """Exceptions are remade from ``args``, which has no status; a shard's has to come whole over Ray."""
        return type(self), (str(self), self.status)


class Endpoint:
    """One model of a server. Use it with ``async with``; it can be used again. UserError for an address that is none."""

    def __init__(self, url: str, model: str, *, retries: int = RETRIES, timeout_s: float = TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"endpoint {url!r}: an address like http://host:8000/v1 is needed")
        if parts.username or parts.password:
            raise UserError("the endpoint's address holds a user or password; set OPENAI_API_KEY instead")
        self.url, self.model = url.rstrip("/"), model
        self._retries, self._timeout_s = retries, timeout_s
        # OpenAI's own newer models take nothing else; other servers know the older name.
        own = parts.hostname == "api.openai.com"
        self._limit = "max_completion_tokens" if own else "max_tokens"
        self._client: Any = None

    async def __aenter__(self) -> Endpoint:
        from openai import AsyncOpenAI

        key = os.environ.get("OPENAI_API_KEY") or NO_KEY
        self._client = AsyncOpenAI(base_url=self.url, api_key=key, max_retries=self._retries, timeout=self._timeout_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        await client.close()

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        max_new_tokens: int,
        temperature: float = 0.0,
        *,
        seed: int | None = None,
    ) -> Generation:
        """The answer to chat ``messages``, its tokens as the server counts them; an answer without text is ``""``.

        UserError where the server cannot be reached, refuses, or answers in another form than OpenAI's.
        """
        from openai import APIConnectionError, APIError, APIStatusError

        if self._client is None:
            raise RuntimeError("the endpoint is not open; use it within `async with`")
        options: dict[str, Any] = {self._limit: max_new_tokens, "temperature": temperature}
        if seed is not None:
            options["seed"] = seed
        try:
            answer = await self._client.chat.completions.create(
                model=self.model, messages=[dict(m) for m in messages], **options
            )
        except APIStatusError as error:
            raise Refused(self._refused(error.status_code, str(error)), error.status_code) from error
        except APIConnectionError as error:  # a time-out is one
            raise UserError(
                f"{self.url}: no answer after {self._retries + 1} tries ({first_line(error.__cause__ or error)}); is the server up? "
                "The same command goes on from here"
            ) from error
        except (APIError, ValueError) as error:  # not JSON, say
            raise UserError(
                f"{self.url}: its answer is not OpenAI's form ({first_line(error.__cause__ or error)})"
            ) from error
        return self._read(answer)

    def _read(self, answer: Any) -> Generation:
        choices, usage = getattr(answer, "choices", None), getattr(answer, "usage", None)
        asked, said = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
        if not choices or getattr(choices[0], "message", None) is None:
            raise UserError(f"{self.url}: it answers without a choice; is it an OpenAI-compatible /v1 address?")
        if not isinstance(asked, int) or not isinstance(said, int):
            raise UserError(f"{self.url}: it answers without usage.prompt_tokens and usage.completion_tokens")
        # Without text all tokens went into a thought that the server hides.
        return Generation(whole(choices[0].message.content or ""), (), asked, counted=said)

    def _refused(self, status: int, message: str) -> str:
        first = (message.splitlines() or [""])[0][:300]
        way_out = {
            401: "set OPENAI_API_KEY",
            403: "set an OPENAI_API_KEY that may use it",
            404: f"is {self.model!r} one of its models, and does the address end in /v1?",
            429: "wait, or ask fewer at once with --concurrency; the same command goes on from here",
        }.get(status, "the same command goes on from here" if status >= 500 else "")
        return f"{self.url}: {first}" + (f"; {way_out}" if way_out else "")
