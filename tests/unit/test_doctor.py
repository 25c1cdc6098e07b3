"""`tts-plugins doctor`: what it finds, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("aiohttp")

from tts_plugins import __version__
from tts_plugins.cli import main
from tts_plugins.testing.loopback import Fault, LoopbackServer
from tts_plugins.verifiers import sandbox_kind


def checks(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "--json", *options])
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is (code == 0)
    return code, {check["name"]: check for check in found["checks"]}


def test_what_is_installed(capsys: Any) -> None:
    code, found = checks(capsys, "--no-run")
    assert code == 0
    assert found["tts-plugins"]["version"] == __version__
    assert found["extra cli"]["status"] == "ok" and found["extra cli"]["version"]
    assert {"extra langchain", "extra dspy"} <= set(found)
    assert found["CPU cores"]["cores"] >= found["CPU cores"]["threads"] >= 1
    for name, check in found.items():
        if name.startswith("extra ") and check["status"] == "absent":
            assert f"tts-plugins[{name.removeprefix('extra ')}]" in check["said"]


def test_the_sandbox_that_works_here(capsys: Any) -> None:
    _, found = checks(capsys, "--no-run")
    sandbox, kind = found["sandbox"], sandbox_kind()
    assert sandbox["kind"] == kind and sandbox["status"] == ("absent" if kind is None else "ok")
    assert (kind or "unsafe=True") in sandbox["said"]
    assert all(f"{other} does not work here" in sandbox["said"] for other in sandbox.get("lacking", ()))


def test_no_run_starts_nothing(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TTS_PLUGINS_CACHE", str(tmp_path / "cache"))
    code, found = checks(capsys, "--no-run")
    assert code == 0 and found["weights"]["status"] == "absent"
    assert found["local model"]["status"] in ("skipped", "absent") and not (tmp_path / "cache").exists()


def test_offline_fetches_nothing(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    monkeypatch.setenv("TTS_PLUGINS_CACHE", str(tmp_path / "cache"))
    code, found = checks(capsys, "--offline")
    assert code == 0 and "--offline" in found["local model"]["said"] and not (tmp_path / "cache").exists()


def test_damaged_weights_are_a_failure(capsys: Any, monkeypatch: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"GGUF but not ours")
    monkeypatch.setenv("TTS_PLUGINS_WEIGHTS", str(wrong))
    code, found = checks(capsys)
    assert code == 1 and found["local model"]["status"] == "failed" and "hash" in found["local model"]["said"]


def test_a_good_server(capsys: Any) -> None:
    with LoopbackServer(models=["qwen", "tiny"], reply="one two three four five " * 6) as server:
        code, found = checks(capsys, "--no-run", "--base-url", server.base_url)
        asked = {request.body["model"] for request in server.requests}
    assert code == 0 and asked == {"qwen"}
    assert found["server"]["models"] == ["qwen", "tiny"]
    assert all(found[name]["honoured"] for name in ("n", "usage", "logprobs"))


def test_a_lesser_server(capsys: Any) -> None:
    with LoopbackServer(honours_n=False, usage=False, refuses=["logprobs"], models=["m"]) as server:
        code, found = checks(capsys, "--no-run", "--base-url", server.base_url, "--model", "other")
    assert code == 0 and found["other"]["status"] == "ok"
    assert "not in it" in found["its list"]["said"]
    assert not any(found[name]["honoured"] for name in ("n", "usage", "logprobs"))


def test_a_server_that_reports_the_first_choice_only(capsys: Any) -> None:
    with LoopbackServer(models=["m"], reply="one two three four five " * 6, usage="first_choice") as server:
        _, found = checks(capsys, "--no-run", "--base-url", server.base_url)
    assert found["n"]["honoured"] and not found["usage"]["honoured"] and "one choice only" in found["usage"]["said"]


def test_the_key_is_sent(capsys: Any, monkeypatch: Any) -> None:
    with LoopbackServer(api_key="secret", models=["m"]) as server:
        monkeypatch.setenv("MY_KEY", "wrong")
        options = ["--no-run", "--base-url", server.base_url, "--api-key-env", "MY_KEY"]
        code, found = checks(capsys, *options)
        assert code == 1 and "failed" in {found["server"]["status"], found.get("m", {}).get("status")}
        monkeypatch.setenv("MY_KEY", "secret")
        assert checks(capsys, *options)[0] == 0


def test_a_server_that_breaks(capsys: Any) -> None:
    with LoopbackServer(models=["m"], faults=Fault.status(500)) as server:
        code, found = checks(capsys, "--no-run", "--base-url", server.base_url)
    assert code == 1 and found["m"]["status"] == "failed" and "500" in found["m"]["said"]


def test_no_server_at_all(capsys: Any) -> None:
    assert main(["doctor", "--no-run", "--base-url", "http://127.0.0.1:9/v1"]) == 1
    out = capsys.readouterr().out
    assert "✗ server" in out and "is the server running there?" in out


def test_options_of_a_server_need_one(capsys: Any) -> None:
    assert main(["doctor", "--model", "m"]) == 2
    assert "--base-url" in capsys.readouterr().err


@pytest.mark.engine
def test_the_local_model_runs(capsys: Any) -> None:
    pytest.importorskip("xllamacpp")
    code, found = checks(capsys)
    assert code == 0 and found["local model"]["tokens_per_second"] > 1
