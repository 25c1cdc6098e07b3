"""What a fit found, as JSON in a file of its own format."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tts_plugins._internal import files
from tts_plugins._internal.config import Configured
from tts_plugins.errors import ConfigurationError, DataError

T = TypeVar("T", bound=Configured)


def write(path: str | os.PathLike[str], kind: str, thing: Configured) -> None:
    """Write it; the file appears whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    target = Path(path)
    partial = files.partial(target)
    with files.writing(path):
        try:
            partial.write_text(json.dumps({"format": kind, **thing.to_dict()}, indent=1) + "\n", encoding="utf-8")
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], kind: str, cls: type[T], what: str) -> T:
    """The thing in a file that `write` wrote.

    Raises:
        DataError: it is none, or of another version: names the file and the field.
    """
    try:
        value: Any = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    if not isinstance(value, Mapping) or value.get("format") != kind:
        raise DataError(f'{path}, format: this is no {what}; it has to hold "format": "{kind}"')
    try:
        return cls.from_dict({k: v for k, v in value.items() if k != "format"})
    except ConfigurationError as error:
        raise DataError(f"{path}: {error}") from error
