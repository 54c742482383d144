"""The command line, run in a test's own process."""

from __future__ import annotations

import sys
from typing import Any

from iranker_verl import cli


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
