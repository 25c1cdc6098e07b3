"""What every way of sending must do alike, over real sockets: our own pool, and the OpenAI client."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

import openai
from aiohttp import web
from aiohttp.test_utils import TestServer
from openai.types.chat import ChatCompletionMessage

from tts_plugins import BestOfN, Budget, Ledger, Problem, SelfConsistency, solve
from tts_plugins.errors import AuthenticationFailed, ConfigurationError, ConnectionFailed, MalformedResponse, TTSError
from tts_plugins.models import EmbeddingModel, OpenAICompatibleModel
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.loopback import LoopbackServer
from tts_plugins.verifiers import LLMJudge, ProcessVerifierHTTP, Similar

pytestmark = pytest.mark.usefixtures("transport")
KEY = "sk-planted-secret-0815"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(text: str = "#### 6", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage, **more}


@asynccontextmanager
async def serving(handle: Handler, path: str = "/v1/chat/completions") -> AsyncIterator[TestServer]:
    app = web.Application(client_max_size=2**27)
    app.router.add_post(path, handle)
    async with TestServer(app) as server:
        yield server


@asynccontextmanager
async def model_at(address: str, **settings: Any) -> AsyncIterator[OpenAICompatibleModel]:
    model = OpenAICompatibleModel("m", base_url=address, **{"api_key": KEY, "max_tokens": 40, **settings})
    try:
        yield model
    finally:
        await model.aclose()


async def asked(server: TestServer, **settings: Any) -> Any:
    async with model_at(str(server.make_url("/v1")), **settings) as model:
        return await model.generate(Problem("How much?"), [1])


async def test_an_infinite_usage_loses_no_reply() -> None:
    async def handle(request: web.Request) -> web.Response:
        body = json.dumps(completion()).replace('"completion_tokens": 3', '"completion_tokens": Infinity')
        return web.Response(text=body, content_type="application/json")

    async with serving(handle) as server:
        reply = await asked(server)
    assert reply.generations[0].text == "#### 6" and not reply.usage.exact and reply.usage.completion_tokens <= 40


async def test_the_output_is_the_client_s_message() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(completion())

    async with serving(handle) as server, model_at(str(server.make_url("/v1"))) as model:
        result = await solve("q", model=model, strategy=SelfConsistency(n=1))
    assert isinstance(result.output, ChatCompletionMessage) and result.output.content == "#### 6"
    assert result.output is result.best.output
    assert pickle.loads(pickle.dumps(result.best)).output.content == "#### 6"


async def test_headers_of_the_user_replace_ours_whatever_their_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-7")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-8")
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request.headers)
        return web.json_response(completion())

    async with serving(handle) as server:
        await asked(server, headers={"authorization": "Basic abcd", "x-team": "blue"})
        await asked(server)
    assert seen[0].getall("Authorization") == ["Basic abcd"] and seen[0]["x-team"] == "blue"
    assert seen[1].getall("Authorization") == [f"Bearer {KEY}"]
    assert (seen[1]["OpenAI-Organization"], seen[1]["OpenAI-Project"]) == ("org-7", "project-8")


async def test_extra_fields_stand_beside_the_others() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(completion(text=json.dumps(await request.json())))

    async with serving(handle) as server:
        reply = await asked(server, extra_body={"top_k": 5}, params={"reasoning_effort": "low"})
    body = json.loads(reply.generations[0].text)
    assert body["top_k"] == 5 and body["reasoning_effort"] == "low" and body["max_tokens"] == 40
    assert "extra_body" not in body and "extra_headers" not in body


async def test_a_large_prompt_is_sent_whole() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response(completion(text=str(len((await request.json())["messages"][0]["content"]))))

    async with serving(handle) as server, model_at(str(server.make_url("/v1"))) as model:
        for size in (2**20 - 200, 5_000_000):
            reply = await model.generate(Problem("x" * size), [1])
            assert reply.generations[0].text == str(size)


# Redirects, limits, proxies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_within_the_server_is_followed(stream: bool) -> None:
    async def handle(request: web.Request) -> web.Response:
        if request.path.endswith("completions"):
            raise web.HTTPTemporaryRedirect("/v1/chat/completions/moved")
        assert (await request.json())["messages"] and request.headers["Authorization"] == f"Bearer {KEY}"
        return web.json_response(completion())

    async with serving(handle, "/v1/chat/{path:.*}") as server:
        assert (await asked(server, stream=stream)).generations[0].text == "#### 6"


async def test_a_redirect_to_another_server_gets_nothing() -> None:
    hits: list[str] = []

    async def other(request: web.Request) -> web.Response:
        hits.append(request.headers.get("Authorization", ""))
        return web.json_response(completion())

    async with serving(other) as elsewhere:

        async def handle(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(str(elsewhere.make_url("/v1/chat/completions")))

        async with serving(handle) as server:
            with pytest.raises(ConfigurationError, match="redirects to another server") as caught:
                await asked(server)
    assert not hits and KEY not in str(caught.value)


def shown(error: BaseException) -> str:
    """Everything that a report of an error may print: its causes, their frames' variables, its notes."""
    texts, todo, seen = [""], [error], set[int]()
    while todo:
        each = todo.pop()
        if id(each) not in seen:
            seen.add(id(each))
            frames = [
                f.f_locals for f, _ in traceback.walk_tb(each.__traceback__) if "tests" not in f.f_code.co_filename
            ]
            texts += [str(each), repr(each), repr(vars(each)), repr(getattr(each, "__notes__", "")), repr(frames)]
            todo += [e for e in (each.__cause__, each.__context__, *getattr(each, "exceptions", ())) if e is not None]
    return "\n".join(texts)


@pytest.mark.parametrize(
    ("given", "where"), [(False, "other"), (False, "login"), (True, "other"), (True, "login"), (True, "path")]
)
async def test_a_client_of_the_users_follows_no_redirect_in_a_search(given: bool, where: str) -> None:
    """Regression: on the loop that its connections belong to, the prompt and its headers went to the stranger."""
    hits: list[str] = []

    async def other(request: web.Request) -> web.Response:
        hits.append(request.path)
        return web.json_response(completion())

    async with serving(other) as elsewhere:
        there = str(elsewhere.make_url("/v1/chat/completions"))
        targets = {
            "other": there,
            "login": there.replace("//", f"//user:{KEY}@"),
            "path": "/v2",
            "garbage": "http://[::1",
        }

        async def handle(request: web.Request) -> web.Response:
            raise web.HTTPTemporaryRedirect(targets[where])

        async with serving(handle) as server:
            client = openai.AsyncOpenAI(
                base_url=str(server.make_url("/v1")), api_key="sk-another-planted-one", default_headers={"X-Team": KEY},
                http_client=openai.DefaultAsyncHttpxClient() if given else None,
            )  # fmt: skip
            ledger, model = Ledger(Budget(calls=5)), OpenAICompatibleModel("m", client=client, max_tokens=9)
            with pytest.raises(ConfigurationError, match="it redirects to") as caught:
                await solve("q", model=model, strategy=SelfConsistency(n=2), budget=ledger)
            await client.close()
    assert not hits and KEY not in shown(caught.value) and "sk-another" not in shown(caught.value)
    assert ledger.spent.calls == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_verifier_s_server_may_not_send_us_elsewhere(status: int) -> None:
    """Regression: without aiohttp, urllib asked the stranger, with all headers."""
    hits: list[Any] = []

    async def other(request: web.Request) -> web.Response:
        hits.append(request.headers)
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", other)
    async with TestServer(app) as elsewhere:

        async def handle(request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": str(elsewhere.make_url("/pooling"))})

        async with serving(handle, "/pooling") as server:
            verifier = ProcessVerifierHTTP("m", base_url=str(server.make_url("/")), api_key=KEY)
            with pytest.raises(ConfigurationError, match="redirects to another server") as caught:
                await solve("q", model=ScriptedModel(["a\n\nb"]), verifier=verifier, strategy=BestOfN(n=1))
            await verifier.aclose()
    assert not hits and KEY not in shown(caught.value)


async def test_redirects_without_end_are_an_error() -> None:
    async def handle(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(request.path)

    async with serving(handle) as server:
        with pytest.raises(ConfigurationError, match="redirects"):
            await asyncio.wait_for(asked(server), 60)


async def test_a_compressed_answer_is_read_and_a_bomb_is_not() -> None:
    small, bomb = gzip.compress(json.dumps(completion()).encode()), gzip.compress(b" " * 2**27)
    bodies = [small, bomb]

    async def handle(request: web.Request) -> web.Response:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(body=bodies.pop(0), headers=headers)

    async with serving(handle) as server:
        assert (await asked(server)).generations[0].text == "#### 6"
        with pytest.raises(MalformedResponse, match="bigger than 64 MB") as caught:
            await asked(server)
    assert not caught.value.retryable


async def test_a_body_that_says_it_is_too_large_is_not_awaited() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(2**31)})
        await response.prepare(request)
        await asyncio.sleep(600)
        return response

    async with serving(handle) as server:
        with pytest.raises(MalformedResponse, match="bigger than"):
            await asyncio.wait_for(asked(server), 60)


async def test_a_proxy_of_the_environment_is_used_and_its_password_never_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[tuple[str, str]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")
        )
        await reader.readexactly(length)
        login = next((line for line in head.splitlines() if line.lower().startswith("proxy-authorization")), "")
        asked_for.append((head.splitlines()[0], login))
        body = b"{}" if "/broken/" in head else json.dumps(completion()).encode()
        status = b"407 Proxy Authentication Required" if "/broken/" in head else b"200 OK"
        writer.write(
            b"HTTP/1.1 " + status + b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        )
        writer.write(b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as proxy:
        port = proxy.sockets[0].getsockname()[1]
        monkeypatch.setenv("HTTP_PROXY", f"http://user:{KEY}@127.0.0.1:{port}")
        monkeypatch.setenv("NO_PROXY", "direct.invalid")
        for name in ("http_proxy", "no_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with model_at("http://model.invalid/v1", api_key="-") as model:
            assert (await model.generate(Problem("q"), [1])).generations[0].text == "#### 6"
        errors = []
        for address in ("http://model.invalid/broken/v1", "http://direct.invalid/v1"):
            async with model_at(address, api_key="-") as model:
                with pytest.raises(TTSError) as caught:
                    await model.generate(Problem("q"), [1])
                errors.append(caught.value)
    assert asked_for[0][0].startswith("POST http://model.invalid/v1/chat/completions") and "Basic" in asked_for[0][1]
    assert len(asked_for) == 2 and isinstance(errors[1], ConnectionFailed)
    chain: BaseException | None = errors[0]
    while chain is not None:
        assert KEY not in str(chain) + repr(chain)
        chain = chain.__cause__ or chain.__context__


@pytest.mark.parametrize("proxy", ["@@@", "http://", "http://127.0.0 .1:3", f"http://user:{KEY}@127.0.0.1:99999"])
async def test_what_is_no_proxy_is_not_passed_by(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: requests went to the server directly, which whoever sets a proxy does not want."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    ledger = Ledger(Budget(calls=5))
    async with model_at("http://model.invalid/v1") as model:
        with pytest.raises(ConfigurationError, match="HTTP_PROXY") as caught:
            await solve("q", model=model, strategy=SelfConsistency(n=1), budget=ledger)
    assert KEY not in shown(caught.value) and ledger.spent.calls == 0


@pytest.mark.parametrize(
    "settings",
    [
        *({"base_url": url} for url in ("ftp://h/v1", "http://h:99999/v1", "http://a..b/v1", "http://h/v1\ud800", "http://[::1",
          "http://ü€/v1")),
        {"base_url": f"http://user:{KEY}@h:99999/v1"}, {"base_url": f"http://h:0/v1?key={KEY}"},
        {"api_key": f"{KEY}\n"}, {"api_key": f"ü{KEY}"}, {"headers": {"X-Team": f"{KEY}\0"}}, {"headers": {"a b": KEY}},
    ],
    ids=ascii,
)  # fmt: skip
def test_what_cannot_be_sent_is_refused_and_no_variable_shows_a_key(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OpenAICompatibleModel("m", **{"base_url": "http://h/v1", "api_key": KEY, **settings})
    assert KEY not in shown(caught.value)


@pytest.mark.parametrize("host", ["h:99999", "h:0", "a..b"])
def test_nor_is_anything_through_a_client_of_the_users(host: str) -> None:
    with pytest.raises(ConfigurationError, match="client's base_url"):
        OpenAICompatibleModel("m", client=openai.AsyncOpenAI(base_url=f"http://{host}/v1", api_key=KEY))


@pytest.mark.parametrize("sent", [{"api_key": f"ü{KEY}"}, {"api_key": "-", "default_headers": {"X-Team": f"ü{KEY}"}}])
async def test_a_header_that_a_client_of_the_users_cannot_send_is_not_shown(sent: dict[str, Any]) -> None:
    ledger = Ledger(Budget(calls=5))
    async with openai.AsyncOpenAI(base_url="http://127.0.0.1:9/v1", **sent) as client:
        model = OpenAICompatibleModel("m", client=client, max_tokens=9)
        with pytest.raises(ConfigurationError) as caught:
            await solve("q", model=model, strategy=SelfConsistency(n=2), budget=ledger)
    assert KEY not in shown(caught.value) and ledger.spent.calls == 0


def verifier_at(address: str) -> ProcessVerifierHTTP:
    return ProcessVerifierHTTP("prm", base_url=address)


def judge_at(address: str) -> LLMJudge:
    return LLMJudge(OpenAICompatibleModel("m", base_url=address, api_key="-", max_tokens=40))


def vectors_at(address: str) -> Similar:
    return Similar("text", model=EmbeddingModel("e", base_url=address, api_key="-"))


VERIFIERS = pytest.mark.parametrize("verifier", [judge_at, verifier_at, vectors_at])


async def unsent(verifier: Any) -> str:
    """What is said of a verifier whose request cannot be sent, for which only the candidate is paid."""
    ledger = Ledger(Budget(calls=50))
    with pytest.raises(ConfigurationError) as caught:
        await solve("q", model=ScriptedModel(["a"]), verifier=verifier, strategy=BestOfN(n=1), budget=ledger)
    assert ledger.spent.calls == 1 and ledger.open_holds == 0
    return str(caught.value)


@VERIFIERS
async def test_a_server_that_does_not_speak_tls_is_not_asked_again(verifier: Any, transport: str) -> None:
    """Regression: such a request was sent four times."""
    with LoopbackServer() as server:
        ledger, address = Ledger(Budget(calls=50)), server.base_url.replace("http:", "https:")
        async with model_at(address) as model:
            with pytest.raises(ConfigurationError, match="does not speak TLS"):
                await solve("q", model=model, strategy=SelfConsistency(n=1), budget=ledger)
        assert ledger.spent.calls == 0
        if verifier is verifier_at and transport == "openai":  # the standard library does not tell what has left
            with pytest.raises(ConfigurationError, match="does not speak TLS"):
                await solve("q", model=ScriptedModel(["a"]), verifier=verifier(address), strategy=BestOfN(n=1))
        else:
            assert "does not speak TLS" in await unsent(verifier(address))


@VERIFIERS
@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:9", "socks9://127.0.0.1:9"])
async def test_a_proxy_that_nothing_speaks_to_is_an_error(
    verifier: Any, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: without aiohttp, a verifier's request went past such a proxy, was repeated, and was paid for."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy)
    assert "HTTP_PROXY" in await unsent(verifier("http://model.invalid/v1"))


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"extra_headers": {"X-Key": KEY}}, "headers": {"X-Other": "1"}},
        {"params": {"extra_query": {"key": KEY}}},
        {"extra_body": {"credentials": {"api_key": KEY}}},
    ],
    ids=["headers", "query", "body"],
)
async def test_a_key_beside_the_request_shows_nowhere(settings: dict[str, Any]) -> None:
    """Regression: only those given as `api_key` or `headers` were hidden, and these took the place of the others."""
    seen: list[Any] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.headers.get("X-Key") or request.query.get("key") or await request.text(), request.headers))
        return web.json_response({"error": {"message": f"wrong: {KEY}"}}, status=401)

    async with serving(handle) as server:
        with pytest.raises(AuthenticationFailed) as caught:
            await asked(server, **{"api_key": "-", **settings})
    assert KEY in seen[0][0] and ("headers" not in settings or "X-Other" in seen[0][1])
    errors = caught.value, caught.value.__cause__
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr([vars(error) for error in errors])


@pytest.mark.parametrize(
    "settings", [{"api_key": "sk-1 "}, {"headers": {"X-A": " 1"}}, {"headers": {"transfer-Encoding": "chunked"}}]
)
def test_what_one_client_alone_could_send_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"no header may|leave it out"):
        OpenAICompatibleModel("m", base_url="http://127.0.0.1:1/v1", **settings)


async def test_an_organisation_that_no_header_may_have_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: through one client it was sent, and through the other it was "half a character"."""
    monkeypatch.setenv("OPENAI_ORG_ID", "é")
    with pytest.raises(ConfigurationError, match="OPENAI_ORG_ID holds characters that are not ASCII"):
        async with model_at("http://127.0.0.1:1/v1") as model:
            await model.generate(Problem("q"), [1])


@pytest.mark.parametrize("verifier", [judge_at, vectors_at])
async def test_a_password_in_an_address_is_not_in_the_request_of_an_error(verifier: Any) -> None:
    with LoopbackServer() as server:
        address = server.base_url.replace("//", f"//user:{KEY}@").replace("/v1", "/none")
        with pytest.raises(TTSError) as caught:
            await solve("q", model=ScriptedModel(["a"]), verifier=verifier(address), strategy=BestOfN(n=1))
    assert KEY not in shown(caught.value)


UNREADABLE = """
import sys
from tts_plugins import BestOfN, Budget, Ledger, SelfConsistency, solve_sync
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import LLMJudge

model, ledger = OpenAICompatibleModel("m", base_url="https://127.0.0.1:9/v1", api_key="-", max_tokens=9), Ledger()
for use in (
    lambda: solve_sync("q", model=model, strategy=SelfConsistency(n=1), budget=ledger),
    lambda: solve_sync(
        "q", model=ScriptedModel(["a"]), verifier=LLMJudge(model), strategy=BestOfN(n=1), budget=ledger
    ),
):
    try:
        use()
    except ConfigurationError as error:
        assert "SSL_CERT_FILE" in str(error), error
        print(ledger.spent.calls)
"""


def test_certificates_that_cannot_be_read_are_an_error(tmp_path: Path, transport: str) -> None:
    """Regression: a missing file was taken for an answer that could not be read, and asked for four times."""
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE], capture_output=True, text=True, timeout=100, check=False,
        env={**os.environ, "SSL_CERT_FILE": str(tmp_path / "none.pem")},
    )  # fmt: skip
    assert done.stdout.split() == ["0", "1"], done.stderr


async def test_loopback_never_goes_through_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(completion())

    async with serving(handle) as server:
        assert (await asked(server)).generations[0].text == "#### 6"


# Loops and processes --------------------------------------------------------------------------------------------------

_BEGIN = """
import asyncio, os, sys
from tts_plugins import SelfConsistency, solve
from tts_plugins.models import OpenAICompatibleModel
model = OpenAICompatibleModel("m", base_url=sys.argv[1], api_key="-", max_tokens=40)
def ask(): return asyncio.run(solve("q", model=model, strategy=SelfConsistency(n=2))).text
"""
_FORKS = """
async def main():
    first = await solve("q", model=model, strategy=SelfConsistency(n=2))
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    child = os.fork()
    if not child:
        try:
            import threading
            done = []
            thread = threading.Thread(target=lambda: done.append(ask()))
            thread.start(); thread.join(60)
            os._exit(0 if done == [first.text] else 3)
        finally:
            os._exit(4)
    assert os.waitpid(child, 0)[1] == 0, "the child could not ask"
    again = await solve("q", model=model, strategy=SelfConsistency(n=2))
    assert again.text == first.text
    await model.aclose()
asyncio.run(main())
"""


def child(code: str, server: LoopbackServer) -> str:
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", _BEGIN + code, server.base_url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr[-3000:]
    return done.stdout


def test_loops_that_end_leave_no_connection_and_no_warning() -> None:
    with LoopbackServer(reply="said") as server:
        assert child("print(*[ask() for _ in range(3)])", server) == "said said said\n"
        server.wait(lambda counts: counts.connections == 0)


def test_a_forked_child_has_connections_of_its_own() -> None:
    with LoopbackServer(reply="said") as server:
        child(_FORKS, server)
        server.wait(lambda counts: counts.connections == 0)


def test_the_openai_client_is_loaded_only_where_it_is_needed(transport: str) -> None:
    with LoopbackServer(reply="said") as server:
        code = "ask(); print('openai' in sys.modules)"
        assert child(code, server).strip() == str(transport == "openai")


async def test_a_call_that_is_cancelled_in_flight_closes_its_connection_and_is_charged() -> None:
    with LoopbackServer(latency=60.0) as server:
        ledger = Ledger(Budget(calls=10))
        async with model_at(server.base_url, batch=1) as model:
            task = asyncio.create_task(solve("q", model=model, strategy=SelfConsistency(n=3), budget=ledger))
            await asyncio.to_thread(server.wait, lambda counts: counts.active == 3, 20)
            task.cancel()
            await asyncio.wait([task])
            await asyncio.to_thread(server.wait, lambda counts: counts.connections == 0, 20)
    assert ledger.spent.calls == 3 == server.counts.aborted and ledger.spent.tokens >= 120


_TLS = """
import asyncio, ssl, sys
from aiohttp import web
from tts_plugins import Problem
from tts_plugins.models import OpenAICompatibleModel
async def handle(request):
    choice = {"index": 0, "message": {"role": "assistant", "content": "over TLS"}, "finish_reason": "stop"}
    return web.json_response({"choices": [choice]})
async def main():
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    model = OpenAICompatibleModel("m", base_url=f"https://localhost:{runner.addresses[0][1]}/v1", api_key="-")
    try:
        print((await model.generate(Problem("q"), [1])).generations[0].text)
    except Exception as error:
        print(type(error).__name__, error.retryable, error)
    await model.aclose()
    await runner.cleanup()
asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_certificates_are_those_of_the_environment(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)

    def said(**environment: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", _TLS, certificate, key], env={**os.environ, **environment}, text=True,
            capture_output=True, timeout=120, check=True,
        ).stdout  # fmt: skip

    assert said(SSL_CERT_FILE=str(certificate)).strip() == "over TLS"
    refused = said()
    assert refused.startswith("ConnectionFailed False") and "certificate" in refused
