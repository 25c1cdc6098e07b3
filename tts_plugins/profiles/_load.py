"""Profiles by their names: found, made once, and made again where a verifier's file changed."""

from __future__ import annotations

import difflib
import functools
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tts_plugins.errors import ConfigurationError
from tts_plugins.profiles._make import Profile, make_profile
from tts_plugins.profiles._tables import ENVIRONMENT, Table, read_tables

_WITH_FILES = {"json-schema": "schema", "sql": "database", "code-tests": "tests"}  # presets, and their argument


def load_profile(
    name: str, *, directory: str | Path | None = None, environ: Mapping[str, str] | None = None
) -> Profile:
    """The profile of that name.

    Args:
        name: as its table in the file is called.
        directory: where to look for the files, and above it; the working directory where left out.
        environ: the environment; the process's own where left out.

    Raises:
        ConfigurationError: it is not known, or a field is wrong; the message names the file and the field.
    """
    given: object = name
    if not isinstance(given, str):
        raise ConfigurationError(f"profile={given!r:.80} must be the name of a profile")
    tables, sources = read_tables(directory, environ)
    if name not in tables:
        raise ConfigurationError(f"profile={name!r:.80} is not known; {_instead(name, tables, sources)}")
    try:
        table = _placed(tables[name], sources[name], Path(directory or Path.cwd()))
        return _made(name, json.dumps(table, sort_keys=True, default=str), os.getcwd(), _stamp(table))
    except ConfigurationError as error:
        raise ConfigurationError(f"{', '.join(sources[name])}: profile {name}: {error}") from error


def profile_names(*, directory: str | Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """All profiles that `load_profile` finds."""
    return sorted(read_tables(directory, environ)[0])


def profile_sources() -> dict[str, list[str]]:
    """The files that each profile is written in, and "the environment" where it says something of it."""
    return read_tables(None, None)[1]


@functools.lru_cache(maxsize=64)
def _made(name: str, table: str, directory: str, stamp: object) -> Profile:
    """The profile of a table, made once: its verifier may hold connections, workers, and what it has judged.

    It is made again in another working directory, and where the verifier's own file has another `stamp`.
    """
    return make_profile(name, json.loads(table))


def _placed(table: Table, sources: Sequence[str], directory: Path) -> Table:
    """The table with its verifier's file as a whole path: it stands beside the profile's file, or in `directory`."""
    given = table.get("verifier")
    kind = given.get("type") if isinstance(given, dict) else given
    name, _, argument = kind.partition(":") if isinstance(kind, str) else ("", "", "")
    if name.replace("_", "-") not in _WITH_FILES:
        return table
    field = "" if argument else _WITH_FILES[name.replace("_", "-")]
    path = given.get(field) if field and isinstance(given, dict) else argument
    folders = [Path(source).parent for source in reversed(sources) if source != ENVIRONMENT]
    for folder in (*folders, directory):
        if isinstance(path, str) and path and _is_file(found := folder / path):
            whole = str(found.resolve())
            placed = {**given, field: whole} if field and isinstance(given, dict) else f"{name}:{whole}"
            return {**table, "verifier": {**given, "type": placed} if argument and isinstance(given, dict) else placed}
    return table


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is no path
        return False


def _stamp(table: Table) -> object:
    """What changes with the file of a verifier: tests and schemas are read when it is made."""
    given = table.get("verifier")
    texts = given.values() if isinstance(given, dict) else (given,)
    files = [Path(part) for text in texts if isinstance(text, str) for part in (text, text.partition(":")[2])]
    return tuple((str(f), (s := f.stat()).st_mtime_ns, s.st_size) for f in files if f.is_absolute() and _is_file(f))


def _instead(name: str, tables: Mapping[str, Table], sources: Mapping[str, Sequence[str]]) -> str:
    """Say which profiles there are, the nearest name first, and where to write this one: into a file that was read."""
    files = sorted({source for found in sources.values() for source in found if source != ENVIRONMENT})
    file = next((file for file in files if file.endswith("tts-plugins.toml")), files[0] if files else "pyproject.toml")
    key = name if re.fullmatch("[A-Za-z0-9_-]{1,80}", name) else '"NAME"'  # as TOML has it without quotes
    table = f"profiles.{key}" if file.endswith("tts-plugins.toml") else f"tool.tts-plugins.profiles.{key}"
    near = difflib.get_close_matches(name, tables, 1)
    meant = f"did you mean {near[0]!r}? " if near else ""
    known = f"known are {', '.join(sorted(tables))}" if tables else "there are none"
    return f"{meant}{known}. Write [{table}] into {file}"
