"""Options that more than one verb has, and options made of a dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, Optional

import typer

from iranker_verl.options import options_of

MODEL = typer.Option(
    help="model folder, Hugging Face name or checkpoint of verl; with --endpoint, the server's name of it"
)
ENDPOINT = "OpenAI-compatible server, e.g. http://host:8000/v1 (key: OPENAI_API_KEY)"
PER_CALL = "candidates that a call excludes: a number, half or all; more are faster"
CONSTRAINED = "read answers from the labels' log-probs: none is malformed"


def per_call_of(given: str) -> Any:
    """Return ``--per-call`` as a number, or unchanged; its user checks it."""
    return int(given) if given.isdecimal() else given


def with_options_of(made_of: type, parameter: str = "options") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that turns a verb's ``parameter``, an instance of the dataclass ``made_of``, into one option a field.

    Name, type, default and help are the field's; the range is checked where the instance is made.
    """

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        options = options_of(made_of)

        def command(**given: Any) -> Any:
            values = {one.name: given.pop(one.name) for one in options}
            return verb(**given, **{parameter: made_of(**values)})

        own = [p for p in inspect.signature(verb, eval_str=True).parameters.values() if p.name != parameter]
        made = [
            inspect.Parameter(
                one.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=one.default,
                annotation=Annotated[
                    Optional[one.type] if one.optional else one.type,  # noqa: UP045
                    typer.Option(help=one.limits["help"]),
                ],
            )
            for one in options
        ]
        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        command.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in [*own, *made]}
        return command

    return decorate
