"""Who may call, from where, and what nobody may see."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ASK, Serving, serving
from tts_plugins.errors import ConfigurationError
from tts_plugins.server import ServerSettings
from tts_plugins.server.budgets.tenants import Tenants, read_tenants
from tts_plugins.testing.loopback import Fault, LoopbackServer

ALICE, BOB, ROOT, UPSTREAM = "alice-secret-key-1", "bob-secret-key-22", "root-secret-key-3", "sk-upstream-secret-4"
SECRETS = (ALICE, BOB, ROOT, UPSTREAM)
CHAT = "/v1/chat/completions"


@pytest.fixture
def keyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Serving, LoopbackServer]]:
    monkeypatch.setenv("UPSTREAM_KEY", UPSTREAM)
    monkeypatch.setenv("ALICE_KEY", ALICE)
    lines = [
        '[tenants.alice]\nkey_env = "ALICE_KEY"\nrequest = { calls = 3 }\n',
        f'[tenants.bob]\nkey_sha256 = "{hashlib.sha256(BOB.encode()).hexdigest()}"\n',
        f'[tenants.root]\nkey_sha256 = "{hashlib.sha256(ROOT.encode()).hexdigest()}"\nadmin = true\n',
    ]
    (tmp_path / "tenants.toml").write_text("".join(lines))
    with (
        LoopbackServer(reply="4", api_key=UPSTREAM) as upstream,
        serving(
            base_url=upstream.base_url, api_key_env="UPSTREAM_KEY", tenants=str(tmp_path / "tenants.toml"), timeout=5
        ) as served,
    ):
        yield served, upstream


def test_a_key_is_needed_for_all_but_health_and_the_empty_page(keyed: tuple[Serving, LoopbackServer]) -> None:
    served, upstream = keyed
    paths = ["/v1/models", "/metrics", "/view/api/solves", "/view/api/events", "/view/api/solve/x", "/v1/nope"]
    for key in (None, "", "wrong", ALICE[:-1], ALICE + "x", f"{ALICE} {BOB}", UPSTREAM):
        for path in paths:
            status, body, headers = served.get(path, key=key)
            assert (
                status == 401 and body["error"]["code"] == "invalid_api_key" and headers["www-authenticate"] == "Bearer"
            )
        for path in (CHAT, "/v1/responses", "/v1/completions", "/v1/embeddings"):
            assert served.post(path, ASK, key=key)[0] == 401
    assert upstream.counts.requests == 0
    assert served.get("/health")[0] == 200 and served.get("/view/")[0] == 200
    for key in (ALICE, BOB, ROOT):
        assert served.post(CHAT, ASK, key=key)[0] == 200
    assert served.get("/metrics", key=ALICE)[0] == 403 and served.get("/metrics", key=ROOT)[0] == 200


def test_a_tenant_sees_its_own_solves_only(keyed: tuple[Serving, LoopbackServer]) -> None:
    served, _ = keyed
    names = {key: served.post(CHAT, ASK, key=key)[1]["id"] for key in (ALICE, BOB)}
    seen = {key: {s["id"] for s in served.get("/view/api/solves", key=key)[1]} for key in SECRETS[:3]}
    assert seen == {ALICE: {names[ALICE]}, BOB: {names[BOB]}, ROOT: set(names.values())}
    assert served.get(f"/view/api/solve/{names[ALICE]}", key=BOB)[0] == 404
    assert served.get(f"/view/api/solve/{names[ALICE]}", key=ALICE)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "localhost", "127.0.0.1:{port}.evil.example",
     "localhost:{port}@evil.example", "localhost.:{port}", "0.0.0.0:{port}", "", "127.0.0.1:{port}, evil", "[::1]",
     "127.1:{port}", "2130706433:{port}", " localhost:{port}x"],
)  # fmt: skip
def test_a_hostile_host_is_refused(keyed: tuple[Serving, LoopbackServer], host: str) -> None:
    served, upstream = keyed
    assert _raw(served, host.format(port=served.port)) in (400, 421)
    assert upstream.counts.requests == 0


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
def test_its_own_names_are_accepted(keyed: tuple[Serving, LoopbackServer], host: str) -> None:
    served, _ = keyed
    assert _raw(served, host.format(port=served.port)) == 200


def _raw(served: Serving, host: str, **headers: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=120)
    try:
        connection.putrequest("POST", CHAT, skip_host=True)
        body = json.dumps(ASK).encode()
        for name, value in {"Host": host, "Authorization": f"Bearer {BOB}", "Content-Type": "application/json",
                            "Content-Length": str(len(body)), **headers}.items():  # fmt: skip
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "file://", "http://localhost", "http://127.0.0.1:{port}.evil.example", "http://[::1]",
     "https://evil.example:{port}", "http://localhost:{port}@evil.example", "http://LOCALHOST.evil:{port}", "*", ""],
)  # fmt: skip
def test_a_hostile_origin_is_refused(keyed: tuple[Serving, LoopbackServer], origin: str) -> None:
    served, upstream = keyed
    status, body, headers = served.post(CHAT, ASK, key=BOB, headers={"Origin": origin.format(port=served.port)})
    assert status == 403 and body["error"]["code"] == "unknown_origin" and "access-control-allow-origin" not in headers
    assert upstream.counts.requests == 0


def test_allowed_origins_are_answered_and_preflights_too() -> None:
    with (
        LoopbackServer(reply="4") as upstream,
        serving(base_url=upstream.base_url, allowed_origins=("https://app.example",)) as served,
    ):
        origin = {"Origin": "https://app.example"}
        assert served.post(CHAT, ASK, headers=origin)[2]["access-control-allow-origin"] == "https://app.example"
        status, _, headers = served._send("OPTIONS", CHAT, None, None, dict(origin))
        assert status == 204 and "authorization" in headers["access-control-allow-headers"]
        assert "access-control-allow-origin" not in served.post(CHAT, ASK)[2]


def test_a_form_of_a_web_page_cannot_call() -> None:
    with LoopbackServer() as upstream, serving(base_url=upstream.base_url) as served:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
            assert served.post(CHAT, ASK, headers={"Content-Type": kind})[0] == 415
        assert upstream.counts.requests == 0


def test_no_caller_reaches_another_upstream(keyed: tuple[Serving, LoopbackServer]) -> None:
    served, _ = keyed
    with LoopbackServer() as evil:
        fields = ("base_url", "api_base", "extra_body", "extra_headers", "user_config", "model_list", "headers")
        bodies = [{**ASK, name: evil.base_url if "_" in name else {"a": evil.base_url}} for name in fields]
        bodies += [
            {**ASK, "tts": {name: evil.base_url}} for name in ("base_url", "upstream", "model", "price", "verifier")
        ]
        bodies += [{**ASK, "tts": {"strategy": {"type": "best-of-n", "base_url": evil.base_url}}}]
        for path in (CHAT, "/v1/completions", "/v1/embeddings"):
            for body in bodies:
                if path == CHAT or "tts" not in body:
                    assert served.post(path, body, key=BOB)[0] == 400
        assert evil.counts.requests == 0
        headers = {"X-Forwarded-Host": "evil", "Forwarded": "host=evil", "X-Upstream": evil.base_url}
        assert served.post(CHAT, ASK, key=BOB, headers=headers)[0] == 200 and evil.counts.requests == 0


def test_planted_keys_are_found_nowhere(
    keyed: tuple[Serving, LoopbackServer], caplog: pytest.LogCaptureFixture
) -> None:
    served, upstream = keyed
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    def keep(answer: tuple[int, Any, Any]) -> None:
        seen.append(json.dumps([answer[0], answer[1], dict(answer[2])]))

    quoting = json.dumps({"error": {"message": f"Incorrect API key provided: {UPSTREAM}", "code": "x"}})
    for fault in (None, *(Fault.status(code, body=quoting) for code in (400, 401, 403, 404, 429, 500))):
        upstream.configure(faults=fault)
        for extra in ({}, {"stream": True}, {"tts": {"n": 3}}):
            keep(served.post(CHAT, {**ASK, **extra}, key=ALICE))
        keep(served.post("/v1/responses", {"model": "loopback", "input": "hi"}, key=ALICE))
        keep(served.post("/v1/completions", {"model": "loopback", "prompt": "hi"}, key=ALICE))
        keep(served.post("/v1/embeddings", {"model": "loopback", "input": "hi"}, key=ALICE))
        keep(served.get("/v1/models", key=ALICE))
    upstream.stop()  # nobody there at all
    for extra in ({}, {"stream": True}):
        keep(served.post(CHAT, {**ASK, **extra}, key=ALICE))
    keep(served.post("/v1/embeddings", {"model": "loopback", "input": "hi"}, key=ALICE))
    for path in ("/metrics", "/view/", "/view/api/solves", "/health"):
        keep(served.get(path, key=ROOT))
    for solve in served.get("/view/api/solves", key=ROOT)[1]:
        keep(served.get(f"/view/api/solve/{solve['id']}", key=ROOT))
        keep(served.get(f"/view/api/solve/{solve['id']}/trace.json", key=ROOT))
    seen += [record.getMessage() + str(record.exc_info) for record in caplog.records if "tts_plugins" in record.name]
    seen += [repr(served.server.settings), served.server.settings.to_json(), repr(vars(served.server.tenants))]
    own = (repr(served.server.settings), served.server.settings.to_json())
    address = upstream.base_url.removeprefix("http://").partition("/")[0]
    assert not [text[:200] for text in seen if address in text and text not in own], "the upstream's address"
    for secret in SECRETS:
        assert not [text[:200] for text in seen if secret in text]
    assert all(ALICE not in json.dumps(r.headers) for r in upstream.requests)


def test_prompts_stay_out_of_metrics_errors_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    prompt = "a-very-private-question"
    ask = {**ASK, "messages": [{"role": "user", "content": prompt}], "model": "private-model-name"}
    with LoopbackServer(faults=Fault.status(500)) as upstream, serving(base_url=upstream.base_url, timeout=3) as served:
        _, body, _ = served.post(CHAT, ask)
        metrics = served.get("/metrics")[1]
    assert prompt not in json.dumps(body) and prompt not in metrics and "private-model-name" not in metrics
    ours = [r for r in caplog.records if r.name.startswith(("tts_plugins", "uvicorn"))]
    assert not [r for r in ours if prompt in r.getMessage()]


def test_every_answer_has_the_headers_of_safety(keyed: tuple[Serving, LoopbackServer]) -> None:
    served, _ = keyed
    for status, _, headers in (served.get("/view/"), served.get("/nope", key=BOB), served.post(CHAT, ASK, key=BOB),
                               served.post(CHAT, ASK)):  # fmt: skip
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", status


# What holds a place


def _half(served: Serving) -> socket.socket:
    """A request whose body does not come."""
    sock = socket.create_connection(("127.0.0.1", served.port), timeout=60)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    return sock


def test_bodies_that_do_not_come_lose_their_places() -> None:
    with (
        LoopbackServer(reply="4") as upstream,
        serving(base_url=upstream.base_url, max_requests=2, max_queue=4, queue_seconds=1.0) as served,
        _half(served) as one,
        _half(served) as other,
    ):
        for sock in (one, other):
            answer = sock.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 408 ") and b"request_timeout" in answer
        assert served.post(CHAT, ASK)[0] == 200 and upstream.counts.requests == 1


def test_places_and_the_queue_for_them_are_limited() -> None:
    with (
        LoopbackServer(faults=Fault.hang()) as upstream,
        serving(base_url=upstream.base_url, max_requests=2, max_queue=1, queue_seconds=1.0, timeout=6) as served,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = [answer.result() for answer in [pool.submit(served.post, CHAT, ASK) for _ in range(8)]]
        assert Counter(status for status, _, _ in answers) == {504: 2, 429: 6}
        refused = [(body["error"]["code"], headers) for status, body, headers in answers if status == 429]
        assert all(code == "rate_limit_exceeded" and int(headers["retry-after"]) >= 1 for code, headers in refused)
        assert upstream.counts.peak == 2
        upstream.configure(faults=None)
        assert served.post(CHAT, ASK)[0] == 200


# What is refused at the start


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "allow_open"), ({"host": "192.168.1.5"}, "allow_open"), ({"host": "::"}, "allow_open"),
        ({"port": -1}, "port"), ({"base_url": "ftp://x"}, "base_url"), ({"timeout": 0}, "timeout"),
        ({"max_candidates": 0}, "max_candidates"), ({"budget": {"tokens": -1}}, "tokens"), ({"price": (1,)}, "price"),
    ],
)  # fmt: skip
def test_wrong_settings_name_the_field(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        ServerSettings(**settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no tenants"), ("[tenants", "not valid TOML"), ("[tenants.a]\n", "key_env and key_sha256"),
        ('[tenants.a]\nkey_sha256 = "12"\n', "64 hexadecimal"), ('[tenants.a]\nkey = "x"\n', "unknown field 'key'"),
        ('[tenants.a]\nkey_env = "NOT_SET_HERE"\n', "not set"), ('[tenants.a]\nkey_env = "SHORT"\n', "too few"),
        ('[tenants."a b"]\nkey_env = "LONG"\n', "name has letters"), ('[tenants.a]\nkey_env="LONG"\nday=5\n', "day=5"),
        ('[tenants.a]\nkey_env="LONG"\nday={joules=5}\n', "day"),
        ('[tenants.a]\nkey_env="LONG"\nday={seconds=5}\n', "one request"),
        ('[tenants.a]\nkey_env="LONG"\nadmin="yes"\n', "admin"),
    ],
)  # fmt: skip
def test_wrong_tenants_name_file_and_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setenv("SHORT", "short")
    monkeypatch.setenv("LONG", "long-enough-to-be-a-key")
    path = tmp_path / "tenants.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_tenants(str(path))
    assert str(path) in str(caught.value) and "long-enough" not in str(caught.value)


def test_two_tenants_with_one_key_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONG", "long-enough-to-be-a-key")
    (tmp_path / "t.toml").write_text('[tenants.a]\nkey_env="LONG"\n[tenants.b]\nkey_env="LONG"\n')
    with pytest.raises(ConfigurationError, match="same key"):
        Tenants.of(ServerSettings(tenants=str(tmp_path / "t.toml")))
