"""`tts-plugins view`: solves that were kept, on the page on which a server shows its own."""

from __future__ import annotations

import json
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_plugins._internal.files import is_sqlite
from tts_plugins.bench import Store
from tts_plugins.cli._commands.serve import Port
from tts_plugins.cli._display.console import Debug, errors, say
from tts_plugins.errors import DataError
from tts_plugins.viewer import Solves

Source = Annotated[
    list[Path],
    typer.Argument(metavar="FILE...", help="A trace as JSON (Trace.to_dict()), or a run of bench."),
]
Browse = Annotated[bool, typer.Option("--open", help="Open it in the browser.")]
_MOST = 2000


def view(source: Source, port: Port = 8401, browse: Browse = False, debug: Debug = False) -> None:
    """Look at solves: candidates, scores, votes, feedback, what they cost.

    [dim]tts-plugins view trace.json[/]

    [dim]tts-plugins view run.sqlite --open[/]
    """
    with errors(debug):
        solves = Solves(_MOST)
        count = 0
        for path in source:
            for name, trace, title in traces_of(path):
                count += 1
                solves.add(f"{count}-{name}", trace, title=title, profile=path.stem if len(source) > 1 else "")
        if not count:
            raise DataError(f"{source[0]}: it holds no solve yet; run `tts-plugins bench` to its end")
        _show(solves, port, browse)


def traces_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield the traces in a file: a name, the trace, and a title.

    Raises:
        DataError: it is neither JSON with a trace nor a run.
    """
    if is_sqlite(path, "give a trace, or a run of bench"):
        yield from _stored(path)
        return
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        fix = "open a page in a browser" if path.suffix == ".html" else "give a trace, or a run of bench"
        raise DataError(f"{path}: it is not JSON ({error}); {fix}") from error
    trace = found.get("trace", found) if isinstance(found, dict) else None
    if not isinstance(trace, dict) or not isinstance(trace.get("events"), list):
        raise DataError(f"{path}: it has no events; give what the viewer exports, or `Trace.to_dict()` as JSON")
    yield path.stem, trace, ""


def _stored(path: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yield the solves of a benchmark's file as traces: it keeps candidates, but not when each arrived."""
    with Store.read(path) as store:
        problems = {row.id: row for row in store.problems()}
        candidates = store.candidates()
        for i, solve in enumerate(store.solves()[-_MOST:]):
            problem = problems.get(solve.problem)
            usage = {
                "calls": solve.calls, "requests": solve.requests, "prompt_tokens": solve.prompt_tokens,
                "completion_tokens": solve.completion_tokens, "tokens": solve.tokens, "usd": solve.usd,
                "seconds": solve.seconds, "exact": solve.exact,
            }  # fmt: skip
            rows = candidates.get((solve.problem, solve.arm, solve.seed), [])
            chosen = None if solve.chosen is None else f"c{solve.chosen}"
            top = {
                "id": 0, "kind": "solve", "parent": None, "at": 0.0, "end": solve.seconds, "seed": solve.seed,
                "problem": (problem.text if problem else None) or solve.problem, "strategy": solve.choice or solve.arm,
                "stopped": solve.stopped, "answer": solve.answer, "score": solve.score, "chosen": chosen,
                "usage": usage,
                **({"error": solve.error} if solve.error else {}),
            }  # fmt: skip
            events = [top, *({
                "id": row.place + 1, "kind": "candidate", "parent": 0, "at": 0.0, "end": solve.seconds,
                "candidate": f"c{row.place}", "index": row.place, "text": row.text or "", "answer": row.answer,
                "score": row.score, "step_scores": list(row.step_scores),
                "finish_reason": "length" if row.truncated else "stop",
            } for row in rows)]  # fmt: skip
            yield f"{i}", {"version": 1, "started": "", "events": events}, f"{solve.arm}: {top['problem']}"[:120]


def _show(solves: Solves, port: int, browse: bool) -> None:
    from tts_plugins.server import ServerSettings, bind  # says what is missing, if it is

    # isort: split
    import uvicorn
    from starlette.routing import Mount, Router

    from tts_plugins.server.budgets.tenants import Tenants
    from tts_plugins.server.guard import Guard
    from tts_plugins.viewer.app import Viewer

    settings = ServerSettings(base_url="http://127.0.0.1", port=port)
    sock = bind(settings)
    settings = ServerSettings(base_url="http://127.0.0.1", port=sock.getsockname()[1])
    app = Guard(Router([Mount("/view", app=Viewer(solves))]), settings, Tenants.of(settings), solves.close)
    address = f"http://127.0.0.1:{settings.port}/view/"
    say(f"{len(list(solves.all()))} solves at {address}; Ctrl-C ends it")
    if browse:
        webbrowser.open(address)
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:
        pass
    finally:
        sock.close()
