"""`tts-plugins demo`: what test-time compute does for a small model, measured on this machine."""

from __future__ import annotations

import asyncio
import importlib.util
from typing import Annotated

import typer

from tts_plugins._trace.wording import plural
from tts_plugins.cli._display.console import (
    Debug,
    Download,
    Html,
    Json,
    check_writable,
    emit,
    errors,
    no_key_echo,
    say,
    start_local,
    stderr,
    stdout,
    write_file,
)
from tts_plugins.cli._display.demo_view import DemoView, report_table
from tts_plugins.errors import ConfigurationError, MissingExtraError


def demo(
    n: Annotated[int, typer.Option("--n", help="Candidates of Best-of-N for each text, at least 2.")] = 8,
    limit: Annotated[int | None, typer.Option(help="Only so many texts: quicker, and less certain.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same requests.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; the free cores if left out.")] = None,
    as_json: Json = False,
    html: Html = None,
    debug: Debug = False,
) -> None:
    """See a small model answer better, for a known cost. No key, no account.

    A model of 135 million parameters (93 MB, fetched once) turns order messages into JSON on this machine, in three
    ways: one greedy answer; the best of N candidates, as a program judges them that does not know the right records;
    and the same, stopped at the first candidate without fault.

    [dim]tts-plugins demo[/]

    [dim]tts-plugins demo --limit 12 --html demo.html[/]
    """
    with errors(debug):
        for extra in ("jsonschema", "xllamacpp"):
            if importlib.util.find_spec(extra) is None:
                raise MissingExtraError(f"the demo needs {extra}: pip install 'tts-plugins[demo]'")
        if n < 2:
            raise ConfigurationError(f"--n {n}: Best-of-N needs at least 2 candidates")
        if limit is not None and limit < 1:
            raise ConfigurationError(f"--limit {limit}: at least 1 text is needed; leave it out for all")
        check_writable(html, "--html")
        from tts_plugins.demo import demo_model, run_demo

        download = Download(stderr())
        with demo_model(n=n, threads=threads, progress=download) as model:
            start_local(download, model)
            with no_key_echo(), DemoView(stderr(), n, f"{model.name} on {plural(model.threads, 'CPU thread')}") as view:
                report = asyncio.run(run_demo(model=model, n=n, seed=seed, limit=limit, on_event=view.add))
        if html is not None:
            write_file(html, report.html())
            say(f"every call: {html}")
        if as_json:
            emit(report.to_dict())
        else:
            stdout().print(report_table(report, n))
