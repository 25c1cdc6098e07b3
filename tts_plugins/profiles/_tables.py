"""The tables of profiles, as files and the environment have them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_plugins._internal.files import check_depth, toml_table
from tts_plugins.errors import ConfigurationError

ENVIRONMENT = "the environment"  # as a source, beside files
PREFIX = "TTS_PLUGINS_PROFILES__"
Table = dict[str, Any]


def read_tables(
    directory: str | Path | None, environ: Mapping[str, str] | None
) -> tuple[dict[str, Table], dict[str, list[str]]]:
    """Read the tables by profile, and where each is written."""
    tables: dict[str, Table] = {}
    sources: dict[str, list[str]] = {}
    for source, found in [*_files(Path(directory or Path.cwd()).resolve()), (ENVIRONMENT, _environment(environ))]:
        for name, table in found.items():
            # Names in the environment are upper case, and mean the profile of that name in whatever case.
            own = next((known for known in tables if source == ENVIRONMENT and known.lower() == name), name)
            if not isinstance(table, dict):
                raise ConfigurationError(f"{source}: profile {name}={table!r} must be a table of settings")
            _merge(tables.setdefault(own, {}), table)
            sources.setdefault(own, []).append(source)
    return tables, sources


def _files(directory: Path) -> list[tuple[str, Table]]:
    """The profiles in the nearest pyproject.toml that has any, and in the nearest tts-plugins.toml."""
    found: list[tuple[str, Table]] = []
    for file, path in (("pyproject.toml", ("tool", "tts-plugins", "profiles")), ("tts-plugins.toml", ("profiles",))):
        for folder in (directory, *directory.parents):
            if not (folder / file).is_file():
                continue
            table: Any = toml_table(folder / file)
            for key in path:
                table = table.get(key, {}) if isinstance(table, dict) else {}
            if table:
                if not isinstance(table, dict):
                    raise ConfigurationError(f"{folder / file}: {'.'.join(path)}={table!r} must be a table of profiles")
                found.append((str(folder / file), table))
                break
    return found


def _environment(environ: Mapping[str, str] | None) -> Table:
    """PREFIX + NAME__FIELD__KEY=value: values are JSON where they can be read as such, else texts."""
    root: Table = {}
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if not variable.upper().startswith(PREFIX):
            continue
        path = variable[len(PREFIX) :].lower().split("__")
        if len(path) < 2 or not all(path):
            raise ConfigurationError(f"environment: {variable}={value!r} names no field; write {PREFIX}NAME__FIELD")
        table = root
        for key in path[:-1]:
            inner = table.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ConfigurationError(f"environment: {variable} is set beside a value for {key!r} itself; set one")
            table = inner
        if isinstance(table.get(path[-1]), dict):
            raise ConfigurationError(f"environment: {variable} is set beside values inside it; set one")
        table[path[-1]] = _value(variable, value)
        check_depth(f"environment: {variable:.80}", root)
    return root


def _value(variable: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise ConfigurationError(
            f"environment: {variable} is nested too deeply ({text:.20}…); keep values to a few levels"
        ) from None


def _merge(into: Table, table: Table) -> None:
    for key, value in table.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        elif isinstance(value, dict) and isinstance(into.get(key), str) and key in ("strategy", "policy", "verifier"):
            into[key] = {"type": into[key], **value}
        else:
            into[key] = {**value} if isinstance(value, dict) else value
