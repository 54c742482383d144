"""Options that more than one verb has."""

from __future__ import annotations

from typing import Annotated

import typer

MODEL = typer.Option(
    help="model folder, Hugging Face name or checkpoint of verl; with --endpoint, the server's name of it"
)
EndpointUrl = Annotated[
    str | None, typer.Option(help="OpenAI-compatible server, e.g. http://host:8000/v1 (key: OPENAI_API_KEY)")
]
