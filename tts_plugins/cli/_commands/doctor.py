"""`tts-plugins doctor`: what is installed, and what runs."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from tts_plugins.cli import _doctor_checks as checks
from tts_plugins.cli._arguments.build import key_of
from tts_plugins.cli._display.console import Debug, Download, Json, emit, errors, say, stderr, stdout
from tts_plugins.cli._doctor_checks import Check
from tts_plugins.errors import ConfigurationError

_MARKS = {"ok": ("✓", "green"), "absent": ("–", "yellow"), "skipped": ("–", "dim"), "failed": ("✗", "bold red")}


def doctor(
    no_run: Annotated[bool, typer.Option("--no-run", help="Do not start the local model.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not fetch the local model's weights.")] = False,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Look at a server too, such as http://127.0.0.1:8000/v1.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model to ask there; the first it lists if left out.")
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The environment variable with its key; OPENAI_API_KEY if left out."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what is installed, whether the local model runs, and what a server honours.

    Exit code: 1 if something that was requested does not work, else 0.

    [dim]tts-plugins doctor[/]

    [dim]tts-plugins doctor --no-run --base-url http://127.0.0.1:8000/v1[/]
    """
    with errors(debug):
        if base_url is None and (model is not None or api_key_env is not None):
            raise ConfigurationError("--model and --api-key-env need the server's --base-url too")
        key = key_of(api_key_env)
        found = [*checks.surroundings(), *_local(no_run, offline)]
        if base_url is not None:
            found += asyncio.run(checks.server(base_url, key, model))
    broken = [check for check in found if check.status == "failed"]
    if as_json:
        emit({"ok": not broken, "checks": [{**c.to_dict(), "name": c.name.strip()} for c in found]})
    else:
        stdout().print(_table(found))
    if broken:
        raise typer.Exit(1)


def _local(no_run: bool, offline: bool) -> list[Check]:
    there = checks.weights()
    name = "local model"
    if there.status == "failed":
        return [there]
    if importlib.util.find_spec("xllamacpp") is None:
        return [there, Check(name=name, status="absent", said="needs the extra local")]
    if no_run:
        return [there, Check(name=name, status="skipped", said="not started, because of --no-run")]
    if offline and there.status == "absent":
        return [there, Check(name=name, status="skipped", said="its weights are not here, and --offline fetches none")]
    if not stderr().is_terminal:
        say("starting the local model")
    ran = checks.local_model(Download(stderr()))
    return [checks.weights(), ran]  # they may have come with the run


def _table(found: list[Check]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True, max_width=28, overflow="ellipsis")
    table.add_column(overflow="fold")
    for check in found:
        sign, style = _MARKS[check.status]
        table.add_row(Text(sign, style=style), check.name, Text(check.said))
    return table
