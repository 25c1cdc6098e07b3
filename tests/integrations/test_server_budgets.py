"""Tenants' budgets over days and months: hard, over processes, crashes and faults; in SQLite and in Redis."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ASK, free_port, serving
from tts_plugins.budget import Amount, Budget
from tts_plugins.server.budgets.accounts import Accounts, StoreFailed, UsageStore, periods_of
from tts_plugins.server.budgets.store_sqlite import SQLiteStore
from tts_plugins.server.budgets.tenants import Tenant, tightest
from tts_plugins.server.errors import APIError
from tts_plugins.testing.loopback import Fault, LoopbackServer

KEY = "tenant-secret-key-1"
ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
Make = Callable[[], UsageStore]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(params=["sqlite", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "usage.sqlite")
    return str(request.getfixturevalue("redis_url"))


def store_at(where: str) -> UsageStore:
    if where.startswith("redis"):
        from tts_plugins.server.budgets.store_redis import RedisStore

        return RedisStore(where)
    return SQLiteStore(where)


FORKED = """
import asyncio, os, signal, sys
from tts_plugins.budget import Amount
from tts_plugins.server.budgets.accounts import Period
from tts_plugins.server.budgets.store_sqlite import SQLiteStore

store, period = SQLiteStore(sys.argv[1]), (Period("day", (5, None, None), 9.0),)

def take():
    return asyncio.run(store.take("a", period, Amount(calls=1), whole=True))

assert take()
children = []
for _ in range(3):  # as a server that is made before its workers are forked
    if not (child := os.fork()):
        signal.alarm(60)
        os._exit(0 if take() else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
assert take() and not take()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_an_account_in_a_file_goes_on_in_forked_workers(tmp_path: Path) -> None:
    """Regression: a child waited for ever for the thread of its parent."""
    command = [sys.executable, "-c", FORKED, str(tmp_path / "usage.sqlite")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def tenant(name: str, **limits: Budget) -> Tenant:
    return Tenant(name=name, **limits)


async def test_take_and_settle(where: str) -> None:
    store = store_at(where)
    periods = periods_of(tenant("take", day=Budget(tokens=100, usd=1), month=Budget(tokens=150)), NOW)
    assert [p.key for p in periods] == ["day:2026-11-29", "month:2026-11"] and periods[0].seconds_left == 12 * 3600
    assert await store.take("take", periods, Amount(0, 60, 5), whole=True) == Amount(0, 60, 5)
    assert await store.take("take", periods, Amount(0, 60, 5), whole=True) is None
    assert await store.take("take", periods, Amount(0, 60, 5), whole=False) == Amount(0, 40, 5)
    assert await store.take("take", periods, Amount(0, 1, 0), whole=False) is None
    await store.settle("take", periods, Amount(0, 60, 5), Amount(2, 10, 1))
    balance = (await store.balances("take", periods))["day:2026-11-29"]
    assert balance.charged == Amount(2, 50, 6) and balance.spent == Amount(2, 10, 1)
    assert (await store.balances("other", periods))["day:2026-11-29"].charged == Amount()
    await store.close()


async def test_grants_narrow_to_what_is_left_and_then_end(where: str) -> None:
    accounts = Accounts(store_at(where), patience=0.3)
    who = tenant("narrow", day=Budget(tokens=100), request=Budget(tokens=60, seconds=5))
    first = await accounts.grant(who, None)
    assert first.budget == Budget(tokens=60, seconds=5)
    with pytest.raises(APIError) as caught:  # the first one holds what this one could have
        await accounts.grant(who, None)
    assert caught.value.status == 429 and caught.value.code == "rate_limit_exceeded" and caught.value.headers
    await accounts.settle(first, Amount(1, 55, 0))
    second = await accounts.grant(who, None)
    assert second.budget == Budget(tokens=45, seconds=5)
    await accounts.settle(second, Amount(1, 45, 0))
    with pytest.raises(APIError) as caught:
        await accounts.grant(who, None)
    assert caught.value.code == "insufficient_quota" and "day's budget of tokens of narrow" in str(caught.value)
    await accounts.close()


async def test_who_waits_gets_what_others_give_back(where: str) -> None:
    accounts = Accounts(store_at(where), patience=10)
    who = tenant("wait", day=Budget(calls=1), request=Budget(calls=1))
    first = await accounts.grant(who, None)
    waiting = asyncio.ensure_future(accounts.grant(who, None))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await accounts.settle(first, Amount(0, 0, 0))
    assert (await waiting).budget == Budget(calls=1)
    await accounts.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [((2028, 2, 29), (2028, 3, 1)), ((2026, 12, 31), (2027, 1, 1)), ((2026, 2, 28), (2026, 3, 1))],
)
async def test_a_new_day_and_month_begin_for_who_waits(
    where: str, before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    now = [datetime(*before, 23, 59, 59, 999_999, tzinfo=UTC)]
    accounts = Accounts(store_at(where), patience=60, clock=lambda: now[0])
    who = tenant(f"midnight{before[0]}-{before[1]}", day=Budget(calls=1), month=Budget(calls=1))
    first = await accounts.grant(who, None)
    waiting = asyncio.ensure_future(accounts.grant(who, None))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    now[0] = datetime(*after, tzinfo=UTC)
    second = await waiting
    assert [p.key[-10:] for p in second.periods] == [f"{now[0]:%Y-%m-%d}", f"nth:{now[0]:%Y-%m}"[-10:]]
    assert all(0 < p.seconds_left <= 3 for p in first.periods if p.key.startswith("day"))
    await accounts.settle(first, Amount(1, 0, 0))  # to the day on which it began
    await accounts.settle(second, Amount(1, 0, 0))
    with pytest.raises(APIError, match="budget of calls"):
        await accounts.grant(who, None)
    await accounts.close()


async def test_a_caller_who_leaves_while_it_is_granted_takes_nothing(where: str) -> None:
    accounts = Accounts(store_at(where), patience=1)
    who = tenant("leave", day=Budget(tokens=100), request=Budget(tokens=100))
    for steps in range(1, 12):  # it leaves at each step of the transaction
        leaving = asyncio.ensure_future(accounts.grant(who, None))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        leaving.cancel()
        (result,) = await asyncio.gather(leaving, return_exceptions=True)
        if not isinstance(result, asyncio.CancelledError):
            assert not isinstance(result, BaseException)
            await accounts.settle(result, Amount())
    grant = await accounts.grant(who, None)
    assert grant.budget == Budget(tokens=100)
    await accounts.close()


_RACER = """
import asyncio, random, sys
from tts_plugins.budget import Amount, Budget
from tts_plugins.server.budgets.accounts import Accounts
from tts_plugins.server.budgets.tenants import Tenant
from tts_plugins.server.errors import APIError
from tests.integrations.test_server_budgets import store_at

async def main(where, name, seed):
    rng = random.Random(seed)
    accounts = Accounts(store_at(where), patience=0.2)
    who = Tenant(name=name, day=Budget(tokens=20_000), month=Budget(tokens=30_000), request=Budget(tokens=300))
    async def one():
        try:
            grant = await accounts.grant(who, None)
        except APIError:
            return False
        used = rng.randint(0, grant.budget.tokens)
        await asyncio.sleep(rng.random() * 0.003)
        print(used, flush=True)  # spent from now on, whatever becomes of this process
        await accounts.settle(grant, Amount(1, used, 0))
        return True
    print("ready", flush=True)
    sys.stdin.readline()
    while any(await asyncio.gather(*(one() for _ in range(8)))):
        pass
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def _race(where: str, name: str) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _RACER, where, name]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, str(i)], **pipes, cwd=ROOT, env=_environment()) for i in range(4)]
    assert [racer.stdout.readline() for racer in racers if racer.stdout] == ["ready\n"] * 4
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.close()
        racer.stdin = None  # `communicate` would flush it
    return racers


def test_four_processes_racing_never_spend_too_much(where: str) -> None:
    spent = [sum(map(int, racer.communicate(timeout=120)[0].split())) for racer in _race(where, "race")]
    assert 20_000 * 0.99 <= sum(spent) <= 20_000
    assert sum(each > 0 for each in spent) >= 2


def test_racers_that_are_killed_leave_nobody_room_for_too_much(where: str) -> None:
    racers = _race(where, "killed")
    spent = 0
    for racer in racers[:2]:  # in the middle of their work: 8 requests of each are under way, or it has ended
        assert racer.stdout is not None
        spent += sum(int(line or 0) for line in (racer.stdout.readline() for _ in range(10)))
        racer.kill()
    for racer in racers:
        assert racer.stdout is not None
        with racer.stdout as rest:  # read on: `communicate` would leave out what is buffered already
            spent += sum(map(int, rest.read().split()))
        racer.wait(120)
    assert 20_000 * 0.99 - 2 * 8 * 300 <= spent <= 20_000


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}


def _settings(tmp_path: Path, upstream: LoopbackServer, where: str, limits: str) -> dict[str, Any]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    name = tmp_path.name.replace("_", "-")[-30:].strip("-") or "t"
    (tmp_path / "tenants.toml").write_text(f'[tenants."t{name}"]\nkey_sha256 = "{digest}"\n{limits}\n')
    return {"base_url": upstream.base_url, "tenants": str(tmp_path / "tenants.toml"), "store": where}


def test_a_used_up_day_is_429(tmp_path: Path, where: str) -> None:
    with LoopbackServer(reply="4") as upstream:
        settings = _settings(tmp_path, upstream, where, "day = { calls = 3 }\nrequest = { calls = 2 }")
        with serving(**settings, queue_seconds=2) as served:
            codes = [served.post("/v1/chat/completions", ASK, key=KEY)[0] for _ in range(4)]
            status, body, _ = served.post("/v1/chat/completions", {**ASK, "stream": True}, key=KEY)
        assert codes == [200, 200, 200, 429] and status == 429 and body["error"]["code"] == "insufficient_quota"
        assert upstream.counts.requests == 3
        with serving(**settings) as served:  # another process of the same tenants, later
            for path, ask in (("chat/completions", ASK), ("responses", {"model": "loopback", "input": "x"}),
                              ("completions", {"model": "loopback", "prompt": "x", "max_tokens": 3}),
                              ("embeddings", {"model": "loopback", "input": "x"})):  # fmt: skip
                assert served.post(f"/v1/{path}", ask, key=KEY)[0] == 429
        assert upstream.counts.requests == 3


def test_a_request_above_its_share_of_the_day_hears_of_the_share(tmp_path: Path) -> None:
    with LoopbackServer(reply="4") as upstream:
        settings = _settings(tmp_path, upstream, str(tmp_path / "usage.sqlite"), "day = { tokens = 800 }")
        with serving(**settings) as served:
            for path, ask in (("chat/completions", ASK), ("embeddings", {"model": "loopback", "input": "x" * 60})):
                status, body, _ = served.post(f"/v1/{path}", {**ask, "max_tokens": 20}, key=KEY)
                assert status == 429 and body["error"]["code"] == "insufficient_quota"
                assert "16th" in body["error"]["message"] and "`request`" in body["error"]["message"]


_SERVE = """
import sys
from tts_plugins.server import ServerSettings, serve
serve(ServerSettings.from_json(sys.argv[1]))
"""


def test_what_is_spent_survives_kill_9(tmp_path: Path, where: str) -> None:
    with LoopbackServer(reply="4", latency=0.01) as upstream:
        port = free_port()
        settings = _settings(tmp_path, upstream, where, "day = { calls = 40 }\nrequest = { calls = 4 }")
        text = json.dumps({**settings, "port": port, "queue_seconds": 0.5})
        answered = 0
        for _ in range(3):
            process = subprocess.Popen([sys.executable, "-c", _SERVE, text], cwd=ROOT, env=_environment())
            try:
                _await_port(port)
                end = time.monotonic() + 0.8
                while time.monotonic() < end:
                    answered += _ask(port)[0] == 200
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        with serving(**{**settings, "queue_seconds": 0.5}) as served:
            while served.post("/v1/chat/completions", ASK, key=KEY)[0] == 200:
                answered += 1
        # The three kills may each have left up to 4 calls charged which were not made.
        assert answered <= upstream.counts.requests <= 40 and upstream.counts.requests >= 40 - 3 * 4


def _await_port(port: int) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("the server did not start")


def _ask(port: int) -> tuple[int, Any]:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        connection.request("POST", "/v1/chat/completions", json.dumps(ASK), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_many_callers_faults_and_one_budget(tmp_path: Path) -> None:
    limit = 3_000
    faults = Fault.random(0.3, seed=1, fault=Fault.status(500))
    with LoopbackServer(reply="a b c d", latency=(0.001, 0.01), faults=faults, record=False) as upstream:
        settings = _settings(
            tmp_path,
            upstream,
            str(tmp_path / "u.sqlite"),
            f"day = {{ tokens = {limit} }}\nrequest = {{ tokens = 400 }}",
        )
        with serving(**settings, queue_seconds=10) as served:
            ask = {**ASK, "max_tokens": 8, "tts": {"n": 2}}
            with ThreadPoolExecutor(32) as pool:
                codes = list(pool.map(lambda _: served.post("/v1/chat/completions", ask, key=KEY)[0], range(96)))
            assert served.quiet()
        with sqlite3.connect(tmp_path / "u.sqlite") as db:
            ((charged, spent),) = db.execute("SELECT tokens, spent_tokens FROM balances").fetchall()
        db.close()
        assert set(codes) <= {200, 429, 502} and 200 in codes
        assert upstream.counts.tokens <= spent == charged <= limit


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["chat/completions", "completions", "embeddings"])
def test_who_goes_away_ends_the_work_and_holds_nothing(tmp_path: Path, path: str, stream: bool) -> None:
    ask = {**ASK, "prompt": "x", "input": "x", "max_tokens": 8, "stream": stream}
    for name in {"chat/completions": ("prompt", "input"), "completions": ("messages", "input")}.get(
        path, ("messages", "prompt", "max_tokens", "stream")
    ):
        del ask[name]
    with LoopbackServer(reply="a b c d", latency=60) as upstream:
        store = tmp_path / "u.sqlite"
        with serving(**_settings(tmp_path, upstream, str(store), "day = { tokens = 9000 }")) as served:
            with socket.create_connection(("127.0.0.1", served.port)) as leaving:
                body = json.dumps(ask).encode()
                head = f"POST /v1/{path} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {KEY}\r\n"
                leaving.sendall(
                    f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
                )
                _until(lambda: upstream.counts.active == 1)
            _until(lambda: upstream.counts.active == 0)
            assert served.quiet()
        with sqlite3.connect(store) as db:
            ((charged, spent),) = db.execute("SELECT tokens, spent_tokens FROM balances").fetchall()
        db.close()
        assert upstream.counts.tokens <= spent == charged


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


async def test_a_stream_that_is_left_before_its_first_frame_is_ended() -> None:
    from tts_plugins.server.attendance import Stream

    async def frames() -> AsyncIterator[bytes]:
        yield b"never sent"

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await asyncio.sleep(60)  # as where the connection takes nothing any more

    ended: list[bool] = []
    answer = Stream(frames(), {}, lambda: ended.append(True))
    await answer({"type": "http", "asgi": {"spec_version": "2.0"}}, receive, send)
    assert ended == [True]


@pytest.mark.parametrize("way", ["read-only", "full", "not a database", "no folder"])
def test_a_store_that_cannot_be_written(tmp_path: Path, way: str) -> None:
    path = tmp_path / "usage.sqlite"
    if way == "not a database":
        path.write_bytes(b"this is not a database" * 100)
    if way in ("not a database", "no folder"):
        with pytest.raises(StoreFailed, match="usage"):
            SQLiteStore(path if way == "not a database" else tmp_path / "no" / "usage.sqlite")
        return
    with LoopbackServer(reply="4") as upstream:
        settings = _settings(tmp_path, upstream, str(path), "day = { calls = 5 }")
        with serving(**settings) as served:
            assert served.post("/v1/chat/completions", ASK, key=KEY)[0] == 200
            store: Any = served.server.service.accounts._store
            pragma = "PRAGMA query_only=1" if way == "read-only" else "PRAGMA max_page_count=1"
            store._thread.submit(lambda: store._connection.execute(pragma)).result()
            if way == "full":
                store._thread.submit(lambda: store._connection.execute("PRAGMA max_page_count=2")).result()
                wide = tenant("x" * 4000, day=Budget(calls=5))
                with pytest.raises(APIError) as caught:
                    asyncio.run(Accounts(store, 1).grant(wide, None))
                assert caught.value.status == 503
                return
            status, body, _ = served.post("/v1/chat/completions", ASK, key=KEY)
            assert status == 503 and body["error"]["code"] == "store_unavailable" and str(path) not in json.dumps(body)
        assert upstream.counts.requests == 1


def test_a_redis_that_is_full_or_gone(tmp_path: Path, redis_url: str) -> None:
    redis = pytest.importorskip("redis").from_url(redis_url)
    with LoopbackServer(reply="4") as upstream:
        with serving(**_settings(tmp_path, upstream, redis_url, "day = { calls = 50 }")) as served:
            assert served.post("/v1/chat/completions", ASK, key=KEY)[0] == 200
            redis.config_set("maxmemory", 1)
            try:
                full = served.post("/v1/chat/completions", ASK, key=KEY)
            finally:
                redis.config_set("maxmemory", 0)
            assert served.post("/v1/chat/completions", ASK, key=KEY)[0] == 200
        nowhere = f"redis://127.0.0.1:{free_port()}/0"
        with serving(**_settings(tmp_path, upstream, nowhere, "day = { calls = 50 }")) as served:
            gone = served.post("/v1/chat/completions", ASK, key=KEY)
        assert upstream.counts.requests == 2
    for status, body, _ in (full, gone):
        assert status == 503 and body["error"]["code"] == "store_unavailable" and "127.0.0.1" not in json.dumps(body)


def test_the_tightest_limits_hold() -> None:
    assert tightest(None, None) is None
    assert tightest(Budget(calls=3, seconds=9), None, Budget(calls=2, usd=1)) == Budget(calls=2, usd=1, seconds=9)
