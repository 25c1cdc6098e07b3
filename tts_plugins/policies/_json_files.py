"""Reads and writes fitted rules and policies as JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from tts_plugins._internal import files
from tts_plugins._internal.config import Configured
from tts_plugins.errors import ConfigurationError, DataError

T = TypeVar("T", bound=Configured)


def write(path: str | os.PathLike[str], kind: str, thing: Configured) -> None:
    """Write a value; the file appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    with files.replacing(path) as made:
        made.write_text(json.dumps({"format": kind, **thing.to_dict()}, indent=1) + "\n", encoding="utf-8")


def read(path: str | os.PathLike[str], kind: str, cls: type[T], what: str) -> T:
    """Read what `write` wrote.

    Raises:
        DataError: there is no such file, or it is not of this format or version; names the file and the field.
    """
    path = files.expanded(path)
    try:
        with files.opened(path) as file:
            value: Any = json.loads(file.read())
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, Mapping) or value.get("format") != kind:
        raise DataError(f'{path}, format: this is not a {what}; the file must hold "format": "{kind}"')
    try:
        return cls.from_dict({k: v for k, v in value.items() if k != "format"})
    except ConfigurationError as error:
        raise DataError(f"{path}: {error}") from error
