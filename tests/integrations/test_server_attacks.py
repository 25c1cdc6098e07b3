"""Requests and upstreams that mean harm: each gets an answer in OpenAI's form, and learns nothing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ASK, Serving, serving
from tts_plugins.errors import ConfigurationError
from tts_plugins.server import ServerSettings
from tts_plugins.server.budgets.tenants import Tenants
from tts_plugins.server.upstream import hider
from tts_plugins.testing.loopback import LoopbackServer, RawReply, RawRequest, RawServer, event_stream

CHAT, RESPONSES, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/embeddings"
KEY = "sk-upstream-secret-key-77"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: ASK,
    RESPONSES: {"model": "loopback", "input": "x"},
    COMPLETIONS: {"model": "loopback", "prompt": "x", "max_tokens": 3},
    EMBEDDINGS: {"model": "loopback", "input": "x"},
}
_CHUNK = {"id": "a", "object": "chat.completion.chunk",
          "choices": [{"index": 0, "text": "hel", "delta": {"content": "hel"}, "finish_reason": None}]}  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Serving]:
    with LoopbackServer(reply="4") as upstream, serving(base_url=upstream.base_url) as server:
        yield server


def _with(path: str, field: str) -> bytes:
    return json.dumps(BODIES[path]).encode()[:-1] + b", " + field.encode() + b"}"


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    ("field", "said"),
    [
        ('"user": "\\ud800"', "user: "),
        ('"\\udfff": 1', "\\udfff: "),
        ('"top_p": 1e999', "too large"),
        ('"top_p": NaN', "NaN"),
        ('"user": "a", "user": "b"', "twice"),
        ('"metadata": {"a": 1, "a": 2}', "twice"),
        (f'"metadata": {"[" * 200}{"]" * 200}', "levels deep"),
        (f'"metadata": {"[" * 100000}{"]" * 100000}', "not valid JSON"),
    ],
)
def test_json_that_readers_understand_differently_is_refused(served: Serving, path: str, field: str, said: str) -> None:
    status, body, _ = served.post(path, _with(path, field))
    assert status == 400 and said in body["error"]["message"] and body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"modalities": 5}, "modalities"),
        (CHAT, {"max_tokens": 10**300}, "max_tokens"),
        (CHAT, {"tts": {"budget": {"usd": 1e300}}}, "tts.budget.usd"),
        (CHAT, {"tts": {"budget": {"tokens": 10**300}}}, "tts.budget.tokens"),
        (CHAT, {"stream": True, "stream_options": {"include_usage": "a"}}, "stream_options.include_usage"),
        (COMPLETIONS, {"max_tokens": 10**300}, "max_tokens"),
        (COMPLETIONS, {"n": 10**300}, "n"),
        (COMPLETIONS, {"best_of": 65}, "best_of"),
        (RESPONSES, {"max_output_tokens": -3}, "max_output_tokens"),
        (RESPONSES, {"input": None}, "input"),
        (RESPONSES, {"input": [{"role": ["user"], "content": "x"}]}, "input[0].role"),
    ],
)
def test_values_beyond_all_measure_are_refused_by_the_callers_own_name(
    served: Serving, path: str, fields: dict[str, Any], param: str
) -> None:
    status, body, _ = served.post(path, {**BODIES[path], **fields})
    assert status == 400 and body["error"]["param"] == param and len(body["error"]["message"]) < 300


def test_ordinary_escapes_and_nesting_pass(served: Serving) -> None:
    deep = '"metadata": ' + '{"a": ' * 100 + '"\\ud83d\\ude00"' + "}" * 100
    assert served.post(CHAT, _with(CHAT, deep))[0] == 200


def test_a_prompt_that_is_hidden_from_the_bound_is_not_sent(tmp_path: Path) -> None:
    with LoopbackServer(reply="4") as upstream, serving(base_url=upstream.base_url, budget={"tokens": 300}) as served:
        for path, hidden in (
            (EMBEDDINGS, {"prompt": None, "input": "x" * 3000}),
            (COMPLETIONS, {"prompt": "x", "suffix": "y" * 3000, "max_tokens": 3}),
        ):
            status, body, _ = served.post(path, {"model": "loopback", **hidden})
            assert status == 429 and body["error"]["code"] == "insufficient_quota"
        assert upstream.counts.requests == 0


@contextmanager
def hostile(kind: str) -> Iterator[tuple[Serving, str]]:
    """A server whose upstream misbehaves, and quotes its own address and the key that it was sent."""

    def reply(request: RawRequest) -> RawReply:
        said = f"{request.headers.get('authorization')} may not ask {upstream.base_url}{request.path}"
        quoted = {"error": {"message": said, "code": "x"}}
        if kind == "redirect":
            return RawReply(b"", 307, {"Location": upstream.base_url.replace("/v1", "/elsewhere")})
        if kind == "breaks off":
            return dataclasses.replace(event_stream(_CHUNK, done=False), cut=True)
        if kind == "stream":
            return event_stream(_CHUNK, quoted)
        return RawReply(b"[" * 5000 if kind == "deep" else quoted, int(kind) if kind.isdigit() else 200)

    with (
        RawServer(reply) as upstream,
        serving(base_url=upstream.base_url, api_key_env="HOSTILE_KEY", timeout=30) as served,
    ):
        yield served, upstream.base_url.removeprefix("http://").removesuffix("/v1")


@pytest.mark.parametrize("kind", ["redirect", "deep", "200", "400", "401", "stream", "breaks off"])
def test_a_hostile_upstream_is_answered_for_and_shown_to_nobody(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOSTILE_KEY", KEY)
    with hostile(kind) as (served, address):
        seen = []
        for path in (CHAT, COMPLETIONS, EMBEDDINGS):
            body = {**BODIES[path], **({"stream": True} if path == CHAT else {})}
            status, answer, headers = served.post(path, body)
            seen += [json.dumps(answer), str(dict(headers))]
            shown = answer if isinstance(answer, str) else json.dumps(answer)
            assert '"error"' in shown and (status >= 400 or isinstance(answer, str)), (path, status, shown)
            assert status != 500 and not 300 <= status < 400
        status, answer, _ = served.get("/v1/models")
        assert status == 502 and answer["error"]["type"] == "api_error"
        seen.append(json.dumps(answer))
        solves = served.get("/view/api/solves")[1]
        for solve in solves:
            seen += [json.dumps(served.get(f"/view/api/solve/{solve['id']}{tail}")[1]) for tail in ("", "/trace.json")]
        assert solves and not [s for s in seen if KEY in s or address in s]
        assert "Traceback" not in caplog.text and KEY not in caplog.text
        assert served.quiet()


@pytest.mark.parametrize(
    ("address", "text", "shown"),
    [
        ("http://10.1.2.3:8000/v1", "at http://10.1.2.3:8000/v1/x, or 10.1.2.3:8000; 10.1.2.30 is another",
         "at …, or …; 10.1.2.30 is another"),
        ("https://llm.internal.example/v1", "see docs.example/a and LLM.internal.example.",
         "see docs.example/a and …."),
        ("http://vllm:8000/v1", "vllm serves; vllm:8000 and http://vllm/v1 do not", "vllm serves; … and … do not"),
        ("http://[::1]:8000/v1", "at http://[::1]:8000/v1", "at …"),
        ("http://me:pass-word-9@10.1.2.3/v1", "pass-word-9 at http://me:pass-word-9@10.1.2.3/v1", "… at …"),
    ],
)  # fmt: skip
def test_the_upstream_s_address_is_hidden_and_other_words_stay(address: str, text: str, shown: str) -> None:
    assert hider(None, address)(text) == shown


def _raw(served: Serving, *lines: str, body: bytes = b"", timeout: float = 60) -> bytes:
    """Send these bytes, and return all that comes back until the server closes."""
    head = "\r\n".join([*lines, f"Host: 127.0.0.1:{served.port}", "", ""]).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=timeout) as connection:
        connection.sendall(head + body)
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as read:
            return read.read()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Content-Type: application/json", "Content-Length: 5", "Transfer-Encoding: chunked"], 400),
        (["Content-Type: application/json", "Content-Length: 5", "Content-Length: 6"], 400),
        (["Content-Type: application/json", "Authorization: Bearer a", "Authorization: Bearer b"], 400),
        (["Content-Type: text/plain", "Content-Type: application/json"], 400),
        (["Content-Type: application/json", "Origin: http://evil.example", "Origin: http://127.0.0.1"], 400),
        (["Content-Type: application/json", "Content-Encoding: gzip", "Connection: close"], 415),
        (["Content-Type: application/json", "Host: evil.example"], 400),
    ],
)
def test_headers_that_gateways_read_differently_are_refused_and_nothing_is_smuggled(
    served: Serving, lines: list[str], status: int
) -> None:
    smuggled = f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n\r\n"
    answer = _raw(served, f"POST {CHAT} HTTP/1.1", *lines, body=b"0\r\n\r\n" + smuggled.encode())
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()) and answer.count(b"HTTP/1.1 ") == 1


def test_a_body_far_above_the_limit_is_answered_and_one_that_asks_first_is_not_read(served: Serving) -> None:
    status, body, _ = served.post(CHAT, b'{"model": "' + b"x" * 50_000_000 + b'"}')
    assert status == 413 and body["error"]["code"] == "request_too_large"
    asking = ["Content-Type: application/json", "Content-Length: 50000000", "Expect: 100-continue"]
    assert _raw(served, f"POST {CHAT} HTTP/1.1", *asking).startswith(b"HTTP/1.1 413 ")


def test_a_key_is_compared_by_its_bytes_and_blanks_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "schl\u00fcssel-geheim-0123-\u00e0"
    (tmp_path / "tenants.toml").write_text(f'[tenants.a]\nkey_sha256 = "{hashlib.sha256(key.encode()).hexdigest()}"\n')
    tenants = Tenants.of(ServerSettings(base_url="http://127.0.0.1:9/v1", tenants=str(tmp_path / "tenants.toml")))
    assert tenants.find("Bearer " + key.encode().decode("latin-1")) and not tenants.find(f"Bearer {key[:-1]}")
    monkeypatch.setenv("BLANK_KEY", " " * 32)
    with pytest.raises(ConfigurationError, match="0 characters"):
        Tenants.of(ServerSettings(base_url="http://127.0.0.1:9/v1", key_env="BLANK_KEY"))


def test_callers_that_read_nothing_of_their_streams_lose_their_places() -> None:
    chunks = [{"choices": [{"index": 0, "text": "x" * 1_000_000, "finish_reason": None}]}] * 30
    with (
        RawServer(lambda request: event_stream(*chunks) if "stream" in request.body else RawReply({"data": []}))
        as upstream,
        serving(base_url=upstream.base_url, max_requests=2, queue_seconds=1.5) as served,
    ):  # fmt: skip
        ask = json.dumps({**BODIES[COMPLETIONS], "stream": True}).encode()
        head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
        stalled = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2)]
        try:
            for connection in stalled:
                connection.sendall(head.encode() + f"Content-Length: {len(ask)}\r\n\r\n".encode() + ask)
            for connection in stalled:
                assert connection.recv(12) == b"HTTP/1.1 200"  # both have their places
            end = time.monotonic() + 60
            while (status := served.post(EMBEDDINGS, BODIES[EMBEDDINGS])[0]) == 429 and time.monotonic() < end:
                pass
            assert status == 200
        finally:
            for connection in stalled:
                connection.close()
        assert served.quiet()


@pytest.mark.parametrize("status", [400, 401, 307])
def test_a_judge_s_address_and_key_are_shown_to_nobody(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)

    def reply(request: RawRequest) -> RawReply:
        said = f"{request.headers.get('authorization')} may not ask {judge.base_url}"
        return RawReply({"error": {"message": said}}, status, {"Location": "http://127.0.0.1:1/x"})

    with RawServer(reply) as judge, LoopbackServer(reply=["4", "5"]) as upstream:
        address = judge.base_url.replace("127.0.0.1", "localhost")  # another one than the upstream's
        (tmp_path / "tts-plugins.toml").write_text(
            '[profiles.j]\nstrategy = { type = "best-of-n", n = 2 }\n[profiles.j.verifier]\ntype = "rubric"\n'
            'rubric = "polite"\n[profiles.j.verifier.model]\ntype = "openai"\nmodel = "m"\n'
            f'base_url = "{address}"\napi_key_env = "JUDGE_KEY"\n'
        )
        with serving(base_url=upstream.base_url, directory=str(tmp_path)) as served:
            answer = served.post(CHAT, {**ASK, "model": "j/loopback"})
            seen = [json.dumps(answer[1])]
            for solve in served.get("/view/api/solves")[1]:
                seen += [
                    json.dumps(served.get(f"/view/api/solve/{solve['id']}{tail}")[1]) for tail in ("", "/trace.json")
                ]
            assert answer[0] >= 400 and len(seen) == 3
            assert not [s for s in seen if KEY in s or address[7:-3] in s or judge.base_url[7:-3] in s]
