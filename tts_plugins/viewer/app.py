"""The viewer's pages and data, as an ASGI application. Texts of models are data here: no route makes markup of them."""

from __future__ import annotations

import asyncio
import base64
import difflib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from tts_plugins._trace.markup import pretty
from tts_plugins._trace.outline import View
from tts_plugins._trace.page import article
from tts_plugins._trace.wording import number, numbers, oneline, shorten, visible
from tts_plugins.viewer.solves import Solve, Solves

# With more candidates than these, the article leaves their list to the page, which shows those in sight only.
_LISTED = 200
_SCRIPTS = ("lists.js", "solve.js", "viewer.js")  # in this order one script
_LONGEST_DIFF = 4000  # words
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_BEAT = 15.0  # seconds; viewer.js takes a silence of three of them for a broken connection
_SECONDS_BETWEEN = 0.2  # reports of changes
Sees = Callable[[Mapping[str, Any]], str | None]


class Viewer(Router):
    """The page and its data.

    Args:
        solves: what is shown.
        sees: from a request's scope to whose solves may be seen; None for all.
    """

    def __init__(self, solves: Solves, sees: Sees = lambda scope: None) -> None:
        self._solves, self._sees = solves, sees
        super().__init__(
            [
                Route("/", self._page),
                Route("/api/solves", self._list),
                Route("/api/events", self._events),
                Route("/api/solve/{name}", self._solve),
                Route("/api/solve/{name}/candidates", self._candidates),
                Route("/api/solve/{name}/candidate", self._candidate),
                Route("/api/solve/{name}/diff", self._diff),
                Route("/api/solve/{name}/trace.json", self._trace),
            ]
        )

    async def _page(self, request: Request) -> Response:
        text, policy = page()
        return Response(text, media_type="text/html", headers={"content-security-policy": policy})

    async def _list(self, request: Request) -> Response:
        return _json([solve.summary() for solve in self._solves.all(self._sees(request.scope))])

    async def _events(self, request: Request) -> Response:
        owner = self._sees(request.scope)
        return StreamingResponse(self._changes(owner), media_type="text/event-stream")

    async def _changes(self, owner: str | None) -> AsyncIterator[bytes]:
        # The first frame says that changes are reported from now on: a list that is read after it misses none.
        watcher = self._solves.watch()
        try:
            yield b": watching\n\n"
            while not self._solves.closed:
                try:
                    async with asyncio.timeout(_BEAT):
                        changed = await watcher.changed()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                for solve in changed:
                    if owner is None or solve.owner == owner:
                        said = {"id": solve.name, "gone": True} if solve.gone else solve.summary()
                        yield b"data: " + _dumps(said) + b"\n\n"
                await asyncio.sleep(_SECONDS_BETWEEN)
        finally:
            self._solves.unwatch(watcher)

    def _found(self, request: Request) -> Solve | None:
        solve = self._solves.get(request.path_params["name"])
        owner = self._sees(request.scope)
        return solve if solve is not None and owner in (None, solve.owner) else None

    async def _solve(self, request: Request) -> Response:
        if (solve := self._found(request)) is None:
            return _missing("solve")
        view = solve.view()
        listed = len(view.candidates) <= _LISTED
        shown = {"summary": solve.summary(), "html": str(article(view, "d-", listed=listed)), "why": view.why}
        return _json(shown)

    async def _candidates(self, request: Request) -> Response:
        if (solve := self._found(request)) is None:
            return _missing("solve")
        view = solve.view()
        return _json([_row(solve, view, event) for event in view.candidates])

    async def _candidate(self, request: Request) -> Response:
        solve = self._found(request)
        event = None if solve is None else _event(solve.view(), request.query_params.get("id", ""))
        if solve is None or event is None:
            return _missing("candidate")
        return _json(_whole(solve.view(), event))

    async def _diff(self, request: Request) -> Response:
        solve = self._found(request)
        names = (request.query_params.get("one", ""), request.query_params.get("other", ""))
        events = [] if solve is None else [_event(solve.view(), name) for name in names]
        if solve is None or None in events:
            return _missing("candidate")
        one, other = (_whole(solve.view(), event) for event in events if event is not None)
        return _json({"one": one, "other": other, "parts": differences(one["text"], other["text"])})

    async def _trace(self, request: Request) -> Response:
        if (solve := self._found(request)) is None:
            return _missing("solve")
        return _json(solve.trace())


def differences(one: str, other: str) -> list[list[str]]:
    """Return where two texts differ, word by word: [kind, of the one, of the other], kind "equal" or "other"."""
    a, b = _WORD.findall(one), _WORD.findall(other)
    if max(len(a), len(b)) > _LONGEST_DIFF:
        a, b = one.splitlines(keepends=True), other.splitlines(keepends=True)
    if max(len(a), len(b)) > _LONGEST_DIFF:
        return [["equal" if one == other else "other", one, other]]
    matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
    return [
        ["equal" if kind == "equal" else "other", "".join(a[i1:i2]), "".join(b[j1:j2])]
        for kind, i1, i2, j1, j2 in matcher.get_opcodes()
    ]


def _row(solve: Solve, view: View, event: Mapping[str, Any]) -> list[Any]:
    """Return one candidate as a short row of the list: there may be ten thousand."""
    said = event.get("answer") if event.get("answer") is not None else str(event.get("text") or "")[:200]
    cut = event.get("finish_reason") == "length" or bool(event.get("truncated"))
    flags = "t" * cut + "i" * solve.suspicious(event)
    score = view.score(event)
    return [
        event.get("index"), event.get("candidate"), None if score is None else round(score, 4), view.mark(event),
        flags, shorten(oneline(said), 90), event.get("parent_candidate"),
    ]  # fmt: skip


def _event(view: View, name: str) -> Mapping[str, Any] | None:
    return next((e for e in view.candidates if str(e.get("candidate")) == name), None)


def _whole(view: View, event: Mapping[str, Any]) -> dict[str, Any]:
    parents = {str(c.get("candidate")): c for c in view.candidates}
    chain: list[Any] = []
    above = event.get("parent_candidate")
    while above is not None and str(above) in parents and above not in chain and len(chain) < 100:
        chain.append(above)
        above = parents[str(above)].get("parent_candidate")
    return {
        "id": event.get("candidate"), "index": event.get("index"), "score": view.score(event),
        "mark": view.mark(event), "answer": None if event.get("answer") is None else visible(event["answer"]),
        "text": visible(pretty(str(event.get("text") or ""))), "feedback": visible(event.get("feedback") or ""),
        "error": visible(event.get("error") or ""), "finish": oneline(event.get("finish_reason") or ""),
        "steps": numbers(event.get("step_scores")), "chain": chain, "at": number(event.get("at")),
        "end": number(event.get("end")),
    }  # fmt: skip


@cache
def page() -> tuple[str, str]:
    """Return the page, and the policy that lets it run only its own script and load only its own data."""
    root, trace = files(__package__), files("tts_plugins._trace")
    style = trace.joinpath("page.css").read_text("utf-8") + root.joinpath("viewer.css").read_text("utf-8")
    script = "".join(root.joinpath(name).read_text("utf-8") for name in _SCRIPTS)
    text = root.joinpath("viewer.html").read_text("utf-8").replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), default=str).encode()


def _json(value: Any, status: int = 200) -> Response:
    return Response(_dumps(value), status, media_type="application/json")


def _missing(what: str) -> Response:
    said = {"message": f"There is no such {what} any more.", "type": "invalid_request_error", "code": "not_found"}
    return _json({"error": {**said, "param": None}}, 404)
