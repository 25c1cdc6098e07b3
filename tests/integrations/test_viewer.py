"""The viewer and the static pages in a real browser: what runs, what is seen, and how fast."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import CHROMIUM, browsing
from tests.serving import ASK, Serving, serving
from tts_plugins._trace.page import page, pages
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.viewer.app import differences

pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FIRE = "window.fired=(window.fired||0)+1"
PAYLOADS = [
    f"<script>{FIRE}</script>", f"<img src=x onerror='{FIRE}'>", f'<svg onload="{FIRE}">', f"<body onload='{FIRE}'>",
    f"<iframe srcdoc=\"<script>parent.{FIRE}</script>\"></iframe>", f"<a href='javascript:{FIRE}' id=click>x</a>",
    f"<details open ontoggle='{FIRE}'>", f"<input autofocus onfocus='{FIRE}'>",
    f"<video><source onerror='{FIRE}'></video>",
    f"<audio src=x onerror='{FIRE}'>", f"</script><script>{FIRE}</script>", f"]]><script>{FIRE}</script>",
    f"--><script>{FIRE}</script><!--", f"</pre><script>{FIRE}</script>", f"</textarea><script>{FIRE}</script>",
    f"</title><script>{FIRE}</script>", f"</style><script>{FIRE}</script>", f"'><script>{FIRE}</script>",
    f'"><script>{FIRE}</script>', f'" onmouseover="{FIRE}" x="', f"' onmouseover='{FIRE}' x='", f"javascript:{FIRE}",
    f"data:text/html,<script>{FIRE}</script>", f"<math><mtext><script>{FIRE}</script></mtext></math>",
    f"<svg><script>{FIRE}</script></svg>", f"<svg><animate onbegin='{FIRE}' attributeName=x dur=1s>",
    f"<object data='javascript:{FIRE}'>", f"<embed src='javascript:{FIRE}'>",
    f"<form action='javascript:{FIRE}'><button>x</form>",
    f"<meta http-equiv=refresh content='0;url=javascript:{FIRE}'>", f"<link rel=stylesheet href='javascript:{FIRE}'>",
    f"<base href='javascript:{FIRE}//'>", f"<style>@import 'javascript:{FIRE}';</style>",
    f"<marquee onstart='{FIRE}'>x</marquee>",
    f"<select onfocus='{FIRE}' autofocus>", f"<template><script>{FIRE}</script></template>",
    f"<noscript><p title='</noscript><script>{FIRE}</script>'>",
    f"\u003cscript\u003e{FIRE}\u003c/script\u003e", f"&lt;script&gt;{FIRE}&lt;/script&gt;",
    f"\\u003cscript>{FIRE}\\u003c/script>",
    f"<scr\x00ipt>{FIRE}</scr\x00ipt>", f"<ScRiPt>{FIRE}</sCrIpT>", f"<script\x0c>{FIRE}</script\x0c>",
    f"＜script＞{FIRE}＜/script＞",
    f"<img src=`x`onerror={FIRE}>", f"<img/src='x'/onerror='{FIRE}'>",
    f"<x contenteditable onblur='{FIRE}' tabindex=1 autofocus>",
    f"${{{FIRE}}}", f"{{{{constructor.constructor('{FIRE}')()}}}}", f"\u2028<script>{FIRE}</script>\u2029",
    f"<dialog open oncancel='{FIRE}'>", f"<button popovertarget=x onclick='{FIRE}'>", f"constructor{FIRE}__proto__",
]  # fmt: skip


def hostile(i: int, payload: str) -> dict[str, Any]:
    """A trace with the payload wherever a text of somebody else's stands."""
    top = {
        "id": 0, "kind": "solve", "parent": None, "at": 0.0, "end": 2.0, "problem": payload, "model": payload,
        "strategy": payload, "verifier": payload, "seed": 1, "stopped": payload if i % 3 == 0 else "complete",
        "answer": payload, "score": 0.5, "chosen": f"c{i}", "usage": {"calls": 2, "tokens": 9, "usd": None},
        "budget": {"tokens": 100, payload: 5}, **({"error": payload, "message": payload} if i % 5 == 0 else {}),
    }  # fmt: skip
    request = {"id": 1, "kind": "request", "parent": 0, "at": 0.0, "end": 1.0, "role": "model", "model": payload,
               "n": 2, "seeds": [payload], "error": payload if i % 2 else ""}  # fmt: skip
    candidates = [
        {"id": 2 + k, "kind": "candidate", "parent": 1, "at": 1.0, "end": 2.0, "candidate": name,
         "index": payload if k else 0, "text": payload * (k + 1),
         "answer": payload, "score": 0.5, "feedback": payload, "finish_reason": payload,
         "parent_candidate": f"c{i}" if k else None}
        for k, name in enumerate((f"c{i}", payload))
    ]  # fmt: skip
    notes = [{"id": 5, "kind": payload, "parent": 0, "at": 1.5, "end": 1.5, payload: payload}]
    return {"version": 1, "started": payload, "events": [top, request, *candidates, *notes]}


def many(count: int) -> dict[str, Any]:
    top = {"id": 0, "kind": "solve", "parent": None, "at": 0.0, "end": 60.0, "problem": "Which?", "model": "m",
           "strategy": "SelfConsistency(n=10000)", "stopped": "complete", "chosen": "k77", "answer": "7", "score": 0.9,
           "usage": {"calls": count, "tokens": 9 * count, "usd": 0.1}, "budget": {"calls": 2 * count}}  # fmt: skip
    candidates = [
        {"id": i + 1, "kind": "candidate", "parent": 0, "at": i / count, "end": 60.0, "candidate": f"k{i}", "index": i,
         "text": f"Number {i}: the answer is {i % 40}.", "answer": str(i % 40), "score": i * 7919 % 1000 / 1000}
        for i in range(count)
    ]  # fmt: skip
    return {"version": 1, "started": "2026-11-29T10:00:00+00:00", "events": [top, *candidates]}


@pytest.fixture
def served() -> Iterator[Serving]:
    with (
        LoopbackServer(reply=["4", "5", "4"], indexing="arrival") as upstream,
        serving(base_url=upstream.base_url) as it,
    ):
        yield it


def solves_of(served: Serving) -> Any:
    return served.server.observation.solves


def test_hostile_texts_run_nowhere(served: Serving, tmp_path: Path) -> None:
    assert len(PAYLOADS) >= 50
    traces = [hostile(i, payload) for i, payload in enumerate(PAYLOADS)]
    for i, trace in enumerate(traces):
        solves_of(served).add(f"x{i}", trace, owner=PAYLOADS[i], profile=PAYLOADS[i], title=PAYLOADS[i])
    files = {"many.html": pages([(PAYLOADS[i], t) for i, t in enumerate(traces)], PAYLOADS[0], PAYLOADS[1])}
    files |= {f"{i}.html": page(t) for i, t in enumerate(traces[::5])}
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8", errors="surrogatepass")
    fired: list[str] = []
    with browsing(viewport={"width": 1280, "height": 900}) as context:
        tab = context.new_page()
        tab.on("dialog", lambda dialog: (fired.append("dialog"), dialog.dismiss()))
        tab.goto(f"{served.root}/view/")
        tab.wait_for_selector(".line")
        for i, payload in enumerate(PAYLOADS):
            parts = [f"#/solve/x{i}", f"#/solve/x{i}/c/c{i}"]
            if i % 5 == 0:
                parts.append(f"#/solve/x{i}/diff/c{i}/{_quoted(payload)}")
            for part in parts:
                tab.evaluate("part => { location.hash = part }", part)
                tab.wait_for_timeout(60)
                if tab.evaluate("window.fired || 0"):
                    fired.append(part)
                tab.evaluate("window.fired = 0")
            if i % 10 == 0:
                tab.wait_for_selector("#detail article")
        for name in files:
            tab.goto((tmp_path / name).as_uri())
            tab.wait_for_timeout(30)
            for details in tab.query_selector_all("summary")[:6]:
                details.evaluate("e => e.parentElement.open = true")
            if tab.evaluate("window.fired || 0"):
                fired.append(name)
    assert fired == []


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def test_ten_thousand_candidates_do_not_stall_it(served: Serving) -> None:
    solves_of(served).add("big", many(10_000), title="big")
    with browsing(viewport={"width": 1280, "height": 900}) as context:
        tab = context.new_page()
        tab.goto(f"{served.root}/view/#/solve/big")
        tab.wait_for_selector(".pool .line")
        assert "10,000 of 10,000" in tab.inner_text(".pool .tools")
        assert tab.evaluate("document.querySelectorAll('.pool .line').length") < 60
        moves = tab.evaluate(FRAMES)
        assert tab.evaluate("document.querySelectorAll('.pool .line').length") < 60
        assert statistics.median(moves) < 200  # far from what is measured: a loaded machine must not fail it
        tab.select_option(".pool select[aria-label=Order]", "score")
        assert tab.inner_text(".pool .line b").startswith(("1.00", "0.99"))


FRAMES = """async () => {
  const box = document.querySelector('.pool .window'), out = [];
  let before = performance.now();
  for (let i = 0; i < 60; i++) {
    box.scrollTop += 997;
    await new Promise(requestAnimationFrame);
    const now = performance.now(); out.push(now - before); before = now;
  }
  return out;
}"""


def wait_for_state(tab: Any, text: str) -> None:
    # Playwright's own way evaluates a text in the page, which the page's policy forbids.
    tab.locator("#state", has_text=text).wait_for()


def test_solves_arrive_live_and_are_read(served: Serving) -> None:
    with browsing(viewport={"width": 390, "height": 800}, color_scheme="dark") as context:
        tab = context.new_page()
        problems: list[str] = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        tab.goto(f"{served.root}/view/")
        wait_for_state(tab, "live")
        name = served.post("/v1/chat/completions", {**ASK, "tts": {"n": 3}})[1]["id"]
        tab.wait_for_selector(".line")
        tab.keyboard.press("j")
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#detail article")
        assert tab.evaluate("location.hash") == f"#/solve/{name}"
        assert "Votes" in tab.inner_text("#detail") and "3 of 3" in tab.inner_text(".pool .tools")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        for box in tab.query_selector_all(".pool input[type=checkbox]")[:2]:
            box.check()
        tab.click("text=Compare two")
        tab.wait_for_selector(".sides del, .sides ins, .sides pre")
        with tab.expect_download() as download:
            tab.click("text=Export the trace")
        saved = json.loads(Path(download.value.path()).read_text())
        assert saved["events"][0]["kind"] == "solve"
        tab.keyboard.press("Escape")
        tab.keyboard.press("Escape")
        assert tab.evaluate("location.hash") == "#/" and problems == []


def test_what_the_reader_is_at_stays_while_solves_arrive(served: Serving) -> None:
    with browsing() as context:
        tab = context.new_page()
        tab.goto(f"{served.root}/view/")
        wait_for_state(tab, "live")
        first = served.post("/v1/chat/completions", ASK)[1]["id"]
        tab.wait_for_selector(".line")
        tab.keyboard.press("j")
        for count in (2, 3):
            served.post("/v1/chat/completions", ASK)
            tab.locator("#count", has_text=f"{count} of {count}").wait_for()
        tab.keyboard.press("Enter")
        tab.wait_for_selector("#detail article")
        assert tab.evaluate("location.hash") == f"#/solve/{first}"
        row = tab.evaluate_handle("document.querySelector('.line.here')")
        served.post("/v1/chat/completions", ASK)
        tab.locator("#count", has_text="4 of 4").wait_for()
        assert row.evaluate("line => line.isConnected && line.matches('.here')")  # a press of the mouse is not lost


def test_a_running_solve_is_shown_though_reading_takes_longer_than_its_changes() -> None:
    def late(route: Any) -> None:
        time.sleep(0.6)
        route.continue_()

    body = json.dumps({**ASK, "max_tokens": 9, "stream": True, "tts": {"n": 40, "budget": {"tokens": 40_000}}})
    with (
        # Candidates come one by one, and some not at all: the caller goes away before.
        LoopbackServer(reply=["4", "5"], latency=lambda i: 600.0 if i > 30 else 0.3 * i, honours_n=False) as upstream,
        serving(base_url=upstream.base_url) as served,
        browsing() as context,
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port)) as caller,
    ):
        tab = context.new_page()
        tab.route("**/api/solve/**", late)
        tab.goto(f"{served.root}/view/")
        wait_for_state(tab, "live")
        caller.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        tab.click(".line")
        tab.wait_for_selector("#detail article")
        tokens = tab.locator(".gauge > div", has_text="tokens")
        tokens.locator("span", has_text=" held, ").wait_for()
        caller.close()
        tokens.locator("span", has_not_text="held").last.wait_for()
        tab.locator(".line .badge", has_text="failed").wait_for()


def test_old_solves_leave_the_list() -> None:
    with (
        LoopbackServer(reply="4") as upstream,
        serving(base_url=upstream.base_url, keep=2) as served,
        browsing() as context,
    ):
        tab = context.new_page()
        tab.goto(f"{served.root}/view/")
        wait_for_state(tab, "live")
        names = [served.post("/v1/chat/completions", ASK)[1]["id"] for _ in range(4)]
        tab.locator("#count", has_text="2 of 2").wait_for()
        tab.evaluate("name => { location.hash = '#/solve/' + name }", names[3])
        tab.wait_for_selector("#detail article")
        tab.evaluate("name => { location.hash = '#/solve/' + name }", names[0])
        tab.locator("#detail .cause", has_text="no such solve").wait_for()


def test_filters_narrow_the_list(served: Serving) -> None:
    failed = {"version": 1, "started": "", "events": [{"id": 0, "kind": "solve", "parent": None, "at": 0, "end": 1,
                                                      "problem": "no", "error": "AllCandidatesFailed"}]}  # fmt: skip
    solves_of(served).add("bad", failed, profile="a", title="bad")
    solves_of(served).add("good", many(3), profile="b", title="good")
    with browsing() as context:
        tab = context.new_page()
        tab.goto(f"{served.root}/view/")
        tab.wait_for_selector(".line")
        tab.select_option("#only", "failed")
        assert tab.inner_text("#count") == "1 of 2 solves"
        tab.select_option("#only", "")
        tab.select_option("#profile", "b")
        assert "good" in tab.inner_text("#rows") and "bad" not in tab.inner_text("#rows")
        tab.fill("#find", "nothing like that")
        assert tab.inner_text("#count") == "0 of 2 solves"


def test_a_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIEW_KEY", "viewer-secret-key-1")
    with LoopbackServer(reply="4") as upstream, serving(base_url=upstream.base_url, key_env="VIEW_KEY") as served:
        served.post("/v1/chat/completions", ASK, key="viewer-secret-key-1")
        with browsing() as context:
            tab = context.new_page()
            tab.goto(f"{served.root}/view/")
            tab.fill("#key", "wrong")
            tab.keyboard.press("Enter")
            wait_for_state(tab, "this key is not known")
            tab.fill("#key", "viewer-secret-key-1")
            tab.keyboard.press("Enter")
            tab.wait_for_selector(".line")
            assert "viewer-secret" not in tab.content()
            deep = context.new_page()  # a link straight to a solve, whose key is asked for first
            name = next(iter(solves_of(served).all())).name
            deep.goto(f"{served.root}/view/#/solve/{name}")
            wait_for_state(deep, "a key is needed")
            deep.fill("#key", "viewer-secret-key-1")
            deep.keyboard.press("Enter")
            deep.wait_for_selector("#detail article")


def test_differences_are_marked_word_by_word() -> None:
    parts = differences("It is 4, surely.", "It is 5, surely.")
    assert ["other", "4", "5"] in parts
    assert "".join(p[1] for p in parts) == "It is 4, surely." and "".join(p[2] for p in parts) == "It is 5, surely."
    long = [html.escape(f"word {i} ") for i in range(9000)]
    assert differences("".join(long), "".join(reversed(long)))
