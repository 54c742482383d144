"""The command line, run in a test's own process."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

from iranker_verl import cli
from iranker_verl.errors import UserError


def iranker(monkeypatch: Any, capsys: Any, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of ``iranker …``."""
    monkeypatch.setattr(sys, "argv", ["iranker", *map(str, arguments)])
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def invoke(app: Typer, *arguments: object) -> Any:
    """The result of one verb's app; what it raises comes through, as the console script gets it."""
    result = CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "160"})
    if isinstance(result.exception, Exception):
        raise result.exception
    return result


def refused(app: Typer, *arguments: object) -> str:
    """The one line with which an app refuses a user's mistake."""
    with pytest.raises(UserError) as error:
        invoke(app, *arguments)
    assert "\n" not in str(error.value)
    return str(error.value)
