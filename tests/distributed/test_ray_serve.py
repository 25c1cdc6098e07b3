"""The server as a Ray Serve deployment. Ray Serve is no extra of ours: without it, its errors alone are tried."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tts_plugins.distributed.serving import ActorStore, deployment
from tts_plugins.errors import ConfigurationError, MissingExtraError
from tts_plugins.server import ServerSettings
from tts_plugins.testing.loopback import LoopbackServer

HAS_SERVE = all(importlib.util.find_spec(name) for name in ("grpc", "fastapi"))
KEY = "sk-test-0123456789abcdef"


def test_a_deployment_needs_an_upstream_and_replicas() -> None:
    with pytest.raises(ConfigurationError, match="base_url is missing"):
        deployment(ServerSettings())
    with pytest.raises(ConfigurationError, match="replicas=0"):
        deployment(ServerSettings(base_url="http://127.0.0.1:1/v1"), replicas=0)


@pytest.mark.skipif(HAS_SERVE, reason="Ray Serve is installed")
def test_without_ray_serve_the_error_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'ray\[serve\]'"):
        deployment(ServerSettings(base_url="http://127.0.0.1:1/v1"))


@pytest.mark.usefixtures("cluster")
async def test_replicas_share_one_account(tmp_path: Path) -> None:
    import ray

    from tts_plugins.budget import Amount
    from tts_plugins.server.budgets.accounts import Period

    one, other = ActorStore(str(tmp_path / "usage.sqlite")), ActorStore(str(tmp_path / "usage.sqlite"))
    apart = ActorStore(str(tmp_path / "another.sqlite"))  # of a deployment with a store of its own
    periods = (Period("day:2026-11-29", (10, None, None), 3600.0),)
    try:
        assert await one.take("alice", periods, Amount(8), whole=True) == Amount(8)
        assert await other.take("alice", periods, Amount(8), whole=True) is None
        assert await other.take("alice", periods, Amount(8), whole=False) == Amount(2)
        assert await apart.take("alice", periods, Amount(8), whole=True) == Amount(8)
        await one.settle("alice", periods, Amount(8), Amount(3))
        assert (await other.balances("alice", periods))["day:2026-11-29"].charged == Amount(5)
    finally:
        for store in (one, apart):
            ray.kill(store._actor)


@pytest.fixture
def upstream() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply="The answer is 4.") as made:
        yield made


@pytest.mark.servers
@pytest.mark.skipif(not HAS_SERVE, reason="Ray Serve is not installed")
@pytest.mark.usefixtures("cluster")
@pytest.mark.filterwarnings("ignore")
def test_replicas_answer_and_keep_a_tenant_s_limit(tmp_path: Path, upstream: LoopbackServer) -> None:
    from ray import serve

    digest = hashlib.sha256(KEY.encode()).hexdigest()
    (tmp_path / "tenants.toml").write_text(f'[tenants.alice]\nkey_sha256 = "{digest}"\nday = {{ calls = 8 }}\n')
    settings = ServerSettings(
        base_url=upstream.base_url, models=("m",), tenants=str(tmp_path / "tenants.toml"), allow_open=True,
        store=str(tmp_path / "usage.sqlite"), allowed_hosts=("*",), view=False,
    )  # fmt: skip
    serve.run(deployment(settings, replicas=2, options={"ray_actor_options": {"num_cpus": 0}}), route_prefix="/")
    try:
        codes = [asked({"model": "m", "max_tokens": 8}) for _ in range(10)]
    finally:
        serve.shutdown()
    assert codes == [200] * 8 + [429] * 2
    assert upstream.counts.choices == 8


def asked(body: dict[str, Any]) -> int:
    data = json.dumps({**body, "messages": [{"role": "user", "content": "2 + 2?"}]}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    request = urllib.request.Request("http://127.0.0.1:8000/v1/chat/completions", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
