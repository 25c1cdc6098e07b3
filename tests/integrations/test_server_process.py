"""`tts-plugins serve` as a process: how it starts, shares, and ends."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ASK
from tts_plugins.cli._commands.serve import greet
from tts_plugins.server import ServerSettings
from tts_plugins.testing.loopback import LoopbackServer

ROOT = Path(__file__).resolve().parents[2]
KEY = "process-secret-key-1"


@contextmanager
def started(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and where it listens."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    command = [sys.executable, "-m", "tts_plugins", "serve", "--port", "0", *options]
    process = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"http://[\d.]+:\d+$", process.stderr.readline().strip().removesuffix("/v1"))
        assert found is not None
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def refused(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The end of a process that does not start to serve."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    command = [sys.executable, "-m", "tts_plugins", "serve", "--port", "0", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=90)


def post(root: str, body: Any, key: str = "-") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{root}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_sigterm_lets_running_solves_end(tmp_path: Path) -> None:
    with (
        LoopbackServer(reply="4", latency=1.5) as upstream,
        started(tmp_path, "--base-url", upstream.base_url) as (process, root),
    ):
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(post(root, {**ASK, "tts": {"n": 3}})))
        thread.start()
        upstream.wait(lambda counts: counts.active > 0, timeout=120)
        process.send_signal(signal.SIGTERM)
        thread.join(60)
        assert answers[0][0] == 200 and answers[0][1]["tts"]["candidates"] == 3
        assert process.wait(120) in (0, -signal.SIGTERM)


def test_workers_share_one_account_and_its_metrics(tmp_path: Path) -> None:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    lines = f'[tenants.a]\nkey_sha256 = "{digest}"\nadmin = true\nday = {{ calls = 5 }}\nrequest = {{ calls = 1 }}\n'
    (tmp_path / "tenants.toml").write_text(lines)
    with (
        LoopbackServer(reply="4") as upstream,
        started(
            tmp_path,
            "--base-url",
            upstream.base_url,
            "--tenants",
            "tenants.toml",
            "--workers",
            "2",
            "--host",
            "127.0.0.1",
        ) as (process, root),
    ):
        codes = [post(root, ASK, KEY)[0] for _ in range(8)]
        assert codes == [200] * 5 + [429] * 3 and upstream.counts.requests == 5
        request = urllib.request.Request(f"{root}/metrics", headers={"Authorization": f"Bearer {KEY}"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read().decode()
        assert 'tts_plugins_solves_total{profile="",stopped="complete"} 5.0' in text
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, -signal.SIGTERM)
    assert (tmp_path / "tts-plugins-usage.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0", "--base-url", "http://127.0.0.1:9"], "--allow-open"),
        (["--base-url", "http://127.0.0.1:9", "--profile", "nope"], "profile='nope' is not known"),
        (["--base-url", "http://127.0.0.1:9", "--tenants", "nowhere.toml"], "nowhere.toml"),
        (["--base-url", "http://127.0.0.1:9", "--key-env", "NOT_SET_ANYWHERE"], "NOT_SET_ANYWHERE"),
        (["--base-url", "127.0.0.1:9"], "http://"), (["--model", "nothing.gguf"], "nothing.gguf"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    run = refused(tmp_path, *options)
    assert run.returncode in (1, 2, 6) and said in run.stderr and "Traceback" not in run.stderr


def test_a_wrong_profile_is_said_instead_of_an_address(tmp_path: Path) -> None:
    (tmp_path / "tts-plugins.toml").write_text('[profiles.kind]\nstrategy = "best-of-n"\nverifier = "rubric:polite"\n')
    run = refused(tmp_path, "--base-url", "http://127.0.0.1:9/v1")
    assert run.returncode == 2 and len(run.stderr.splitlines()) == 1
    assert "profile kind: preset rubric" in run.stderr and "pass the model that it asks" in run.stderr


def test_no_password_of_an_address_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tenants.toml").write_text(f'[tenants.a]\nkey_sha256 = "{"a" * 64}"\nday = {{ calls = 5 }}\n')
    store = "redis://:secret/word@127.0.0.1:1/0"
    run = refused(tmp_path, "--base-url", "http://127.0.0.1:9", "--tenants", "tenants.toml", "--store", store)
    assert run.returncode == 2 and "store:" in run.stderr and "secret" not in run.stderr + run.stdout
    greet(ServerSettings(base_url="http://me:secret-word@127.0.0.1:9/v1"))
    assert (said := "".join(capsys.readouterr())).count("http://127.0.0.1:9/v1") == 1 and "secret" not in said


def test_an_address_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with LoopbackServer() as upstream, started(tmp_path, "--base-url", upstream.base_url) as (_, root):
        run = refused(tmp_path, "--port", root.rpartition(":")[2], "--base-url", upstream.base_url)
        assert run.returncode == 2 and "choose another --port" in run.stderr


def test_view_shows_a_trace_and_a_run(tmp_path: Path) -> None:
    trace = {"version": 1, "started": "", "events": [{"id": 0, "kind": "solve", "parent": None, "at": 0, "end": 1,
                                                     "problem": "Which?", "stopped": "complete"}]}  # fmt: skip
    (tmp_path / "trace.json").write_text(json.dumps(trace))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'integrations'}"}
    command = [sys.executable, "-m", "tts_plugins", "view", "trace.json", "--port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        found = re.search(r"1 solves? at (http://\S+)view/", process.stderr.readline())
        assert found is not None
        time.sleep(0.2)
        with urllib.request.urlopen(f"{found[1]}view/api/solves", timeout=120) as answer:
            assert json.load(answer)[0]["title"] == "Which?"
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    for name, text in (("no.json", "{"), ("other.json", "{}"), ("absent.json", None)):
        if text is not None:
            (tmp_path / name).write_text(text)
        run = subprocess.run(
            [*command[:-3], name], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=90
        )
        assert run.returncode == 6 and name in run.stderr and "Traceback" not in run.stderr
