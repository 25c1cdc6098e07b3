"""`tts-plugins profiles`: the named bundles of settings that are found from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from tts_plugins.cli._display.console import Debug, Json, emit, errors, stdout
from tts_plugins.engine.dry_run import brief
from tts_plugins.errors import ConfigurationError
from tts_plugins.profiles import Profile, load_profile, profile_sources


def profiles(as_json: Json = False, debug: Debug = False) -> None:
    """List the profiles that are found from this folder, and where each is written.

    They stand in the nearest pyproject.toml that has any, in the nearest tts-plugins.toml, and in the environment.
    Exit code: 2 if one of them is wrong, else 0.
    """
    with errors(debug):
        sources = profile_sources()
        found = {name: _looked_at(name) for name in sorted(sources)}
        if as_json:
            emit({name: {"from": sources[name], **said} for name, said in found.items()})
        else:
            _print(found, sources)
        if wrong := [str(said["error"]) for said in found.values() if "error" in said]:
            raise ConfigurationError(wrong[0])


def _looked_at(name: str) -> dict[str, Any]:
    try:
        profile = load_profile(name)
    except ConfigurationError as error:
        return {"error": str(error)}
    return {key: _shown(value) for key, value in profile.settings().items()}


def _shown(value: Any) -> str:
    return str(getattr(value, "name", None) or brief(value))


def _print(found: Mapping[str, Mapping[str, Any]], sources: Mapping[str, Sequence[str]]) -> None:
    if not found:
        stdout().print(
            "There are no profiles here. Write [profiles.NAME] into tts-plugins.toml, or "
            "[tool.tts-plugins.profiles.NAME] into pyproject.toml.", markup=False,
        )  # fmt: skip
        return
    fields = [name for name in Profile.__dataclass_fields__ if any(name in said for said in found.values())]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("profile", *fields, "from"):
        table.add_column(heading, overflow="fold")
    for name, said in found.items():
        row = [str(said.get(field, "")) for field in fields]
        table.add_row(
            name, *(["wrong: see below", *row[1:]] if "error" in said and row else row), ", ".join(sources[name])
        )
    stdout().print(table)
