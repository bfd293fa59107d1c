"""The argument parser of all commands and recipes: jsonargparse with errors of one line."""

from __future__ import annotations

import difflib
from collections.abc import Container
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

import docstring_parser
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import register_type

from v2m.core.errors import UsageError
from v2m.core.timing import Seconds, parse_seconds

register_type(Seconds, serializer=float, deserializer=parse_seconds, type_check=lambda value, _: type(value) is float)


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


def add_fields(parser: ArgumentParser, kind: Any, names: Container[str]) -> None:
    """Add fields of a dataclass as options, with hyphens and with the help of its docstring."""
    types = get_type_hints(kind)
    help_texts = {param.arg_name: param.description for param in docstring_parser.parse(kind.__doc__ or "").params}
    for field in fields(kind):
        if field.name in names:
            flag, help_text = f"--{field.name.replace('_', '-')}", " ".join((help_texts[field.name] or "").split())
            parser.add_argument(flag, type=types[field.name], default=field.default, help=help_text)


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
    headings = ("Subtypes:", "Errors:", "Given value type:", "Given value: Namespace(")
    noise = (*headings, "Does not validate", "Expected a <class 'NoneType'>")
    return " ".join(line for line in lines if line and not line.startswith(noise))
