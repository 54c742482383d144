"""A model behind an OpenAI-compatible server (vLLM's, llama.cpp's, OpenAI's …), asked as our own engine is.

    async with Endpoint("http://localhost:8000/v1", "qwen") as engine:
        answer = await engine.ask(messages, max_new_tokens=8)

The key is read from ``OPENAI_API_KEY``; a server without keys needs none. What passes by itself (429, 5xx, a broken
connection) is tried again with growing pauses by the ``openai`` client. Redirects are not followed: they would carry the texts
to another server. Where a server insists on ``max_completion_tokens`` or on its own temperature, it is asked so from then on.

Texts go to the server as they are. Whether a text that holds ``<|im_end|>`` can end a turn there is for its tokenizer to say; our
own engine excludes that (:mod:`iranker_verl.ranking.chat`).
"""

from __future__ import annotations

import os
import re
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from iranker_verl.errors import UserError, first_line
from iranker_verl.inference.engine import Generation, Messages
from iranker_verl.ranking.text import printable, whole

RETRIES = 6  # half a second, doubled up to eight: half a minute in all
TIMEOUT_S = 600.0  # long reasoning on a busy server
FIXED_TEMPERATURE = re.compile(r"temperature\W.{0,60}(support|default|allowed|must)")
NO_KEY = "none"  # the client insists on one; servers without keys ignore it


class Refused(UserError):
    """The server answered with an error. ``status`` is HTTP's; ``summary`` has none of the server's words, which may repeat texts."""

    def __init__(self, message: str, status: int, summary: str = "") -> None:
        super().__init__(message)
        self.status, self.summary = status, summary

    def __reduce__(self) -> tuple[type[Refused], tuple[str, int, str]]:
        """Return how to make it again: by default from ``args``, which has no status. A shard's has to come whole over Ray."""
        return type(self), (str(self), self.status, self.summary)


class Endpoint:
    """One model of a server. Use it with ``async with``; it can be used again. UserError for an invalid address."""

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
        self._fixed_temperature = False
        self._client: Any = None

    async def __aenter__(self) -> Endpoint:
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        key = os.environ.get("OPENAI_API_KEY", "").strip() or NO_KEY  # from a file, it may end in a line feed
        self._client = AsyncOpenAI(
            base_url=self.url,
            api_key=key,
            max_retries=self._retries,
            timeout=self._timeout_s,
            http_client=DefaultAsyncHttpxClient(follow_redirects=False, timeout=self._timeout_s),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        await client.close()

    async def ask(
        self, messages: Messages, max_new_tokens: int, temperature: float = 0.0, *, seed: int | None = None
    ) -> Generation:
        """Return the answer to chat ``messages``, its tokens as the server counts them; an answer without text is ``""``.

        Raise UserError where the server cannot be reached, refuses, or answers in another form than OpenAI's.
        """
        from openai import APIConnectionError, APIError, APIStatusError

        if self._client is None:
            raise RuntimeError("the endpoint is not open; use it within `async with`")
        sampling: dict[str, Any] = {"temperature": temperature} | ({} if seed is None else {"seed": seed})
        if messages[-1]["role"] == "assistant":  # an answer that has begun; vLLM's options, since OpenAI's API has none
            sampling["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        try:
            answer = await self._complete(messages, max_new_tokens, sampling)
        except APIStatusError as error:
            raise self._refused(error.status_code, str(error)) from error
        except APIConnectionError as error:  # a time-out is one
            raise UserError(
                f"{self.url}: no answer after {self._retries + 1} tries ({_reason(error)}); is the server up? "
                "The same command continues from here"
            ) from error
        except (APIError, ValueError) as error:  # not JSON, say
            raise UserError(f"{self.url}: its answer is not OpenAI's form ({_reason(error)})") from error
        return self._read(answer)

    async def _complete(self, messages: Messages, max_new_tokens: int, sampling: dict[str, Any]) -> Any:
        """Send the request, and send it again where the server refuses an option by name."""
        from openai import BadRequestError

        while True:
            limit, fixed = self._limit, self._fixed_temperature
            options = {limit: max_new_tokens, **sampling}
            if fixed:
                del options["temperature"]
            try:
                return await self._client.chat.completions.create(
                    model=self.model, messages=[dict(m) for m in messages], **options
                )
            except BadRequestError as error:
                param, message = error.param, str(error)
                if limit == "max_tokens" and "max_completion_tokens" in message:
                    self._limit = "max_completion_tokens"
                elif not fixed and (param == "temperature" or FIXED_TEMPERATURE.search(message)):
                    self._fixed_temperature = True
                else:
                    raise

    def _read(self, answer: Any) -> Generation:
        choices, usage = getattr(answer, "choices", None), getattr(answer, "usage", None)
        prompt_tokens, new_tokens = (getattr(usage, f"{name}_tokens", None) for name in ("prompt", "completion"))
        if not choices or getattr(choices[0], "message", None) is None:
            raise UserError(f"{self.url}: its answer has no choices; is it an OpenAI-compatible /v1 address?")
        if not isinstance(prompt_tokens, int | float) or not isinstance(new_tokens, int | float):
            raise UserError(f"{self.url}: its answer has no usage.prompt_tokens and usage.completion_tokens")
        # Without text all tokens went into reasoning that the server hides.
        text = whole(_text(choices[0].message.content))
        return Generation(text, (), int(prompt_tokens), counted=int(new_tokens))

    def _refused(self, status: int, message: str) -> Refused:
        way_out = {
            401: "set OPENAI_API_KEY",
            403: "set an OPENAI_API_KEY that may use it",
            404: f"is {self.model!r} one of its models, and does the address end in /v1?",
            429: "wait, or ask fewer at once with --concurrency; the same command continues from here",
        }.get(status, "the same command continues from here" if status >= 500 else "")
        if 300 <= status < 400:
            way_out = "it redirects, which is not followed; give the address that it leads to"
        after = f"; {way_out}" if way_out else ""
        return Refused(f"{self.url}: {printable(message)[:300]}{after}", status, f"HTTP {status}{after}")


def _text(content: Any) -> str:
    """Return an answer's text: ``content``, or the texts of its parts. Parts of another type, such as reasoning, have none."""
    if isinstance(content, str):
        return content
    parts = [part if isinstance(part, dict) else {"text": part} for part in content or ()]
    texts = [part.get("text") for part in parts if part.get("type", "text") in ("text", "output_text")]
    return "".join(text for text in texts if isinstance(text, str))


def _reason(error: BaseException) -> str:
    return printable(first_line(error.__cause__ or error))
