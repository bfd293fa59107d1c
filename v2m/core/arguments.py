"""The argument parser of all commands and recipes: jsonargparse with errors of one line."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from v2m.core.errors import UsageError


class OneLineParser(ArgumentParser):
    """Raises `UsageError` with one line instead of printing usage and exiting."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:  # noqa: ARG002 - jsonargparse's signature
        raise UsageError(self._one_line(message))

    def _one_line(self, message: str) -> str:
        unknown = message.partition("unrecognized arguments: ")[2].split()
        if unknown:
            options = [option for action in self._actions for option in action.option_strings]
            close = difflib.get_close_matches(unknown[0].partition("=")[0], options, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "see --help"
            return f"unknown option {unknown[0]}: {hint}"
        return flatten_message(message)


def to_plain(value: Any) -> Any:
    """Parsed values as YAML or JSON holds them: dicts, lists, strings, numbers."""
    if isinstance(value, Namespace):
        return {key: to_plain(item) for key, item in vars(value).items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def flatten_message(message: str) -> str:
    """Join jsonargparse's paragraphs to one line, without the types that were tried."""
    lines = [line.strip(" -") for line in message.splitlines()]
    noise = (
        *("Subtypes:", "Errors:", "Given value type:", "Given value: Namespace("),
        *("Does not validate", "Expected a <class 'NoneType'>"),
    )
    return " ".join(line for line in lines if line and not line.startswith(noise))
