"""Each file that a command reads, given what is none: one sentence with its name, and the exit code of docs/cli.md."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")
pytest.importorskip("aiohttp")

from tts_plugins.cli import main

KINDS = ["missing", "folder", "forbidden", "empty", "binary", "text", "database", "torn"]
# What cannot be read even by root: a file of another process's memory.
FORBIDDEN = Path("/proc/1/mem")
MODEL = ["--model", "m", "--base-url", "http://127.0.0.1:9/v1"]
DATA = {
    "record": ["record", "FILE", "--n", "2", "--out", "out.jsonl.gz", *MODEL],
    "problems": ["solve", "--problems", "FILE", *MODEL],
    "bench": ["bench", "--problems", "FILE", "--out", "b.sqlite", *MODEL],
    "pool": ["bench", "--pool", "FILE", "--out", "b.sqlite"],
    "batch": ["batch", "FILE.jsonl", "out.jsonl", "--profile", "p", *MODEL],
    "report": ["report", "FILE"],
    "calibrate": ["calibrate", "FILE", "--out", "policy.json"],
    "export": ["export", "FILE", "--out", "made", "--format", "sft"],
    "rollouts": ["rollouts", "FILE", "--out", "r.jsonl", *MODEL],
    "train-verifier": ["train-verifier", "FILE", "--out", "v.npz"],
    "view": ["view", "FILE"],
    "policy": ["solve", "q", "--strategy", "compute-optimal:file=FILE", *MODEL],
    "learned": ["solve", "q", "--verifier", "FILE.npz", *MODEL],
    "weights": ["solve", "q", "--model", "FILE.gguf"],
    "store": ["serve", "--store", "FILE", "--port", "0", "--tenants", "tenants.toml", *MODEL],
}
SETTINGS = {
    "config": ["bench", "FILE.toml", *MODEL],
    "config-json": ["bench", "FILE.json", *MODEL],
    "tenants": ["serve", "--tenants", "FILE", "--port", "0", *MODEL],
    "schema": ["solve", "q", "--verifier", "json-schema:FILE", *MODEL],
    "sql": ["solve", "q", "--verifier", "sql:FILE", *MODEL],
    "code": ["solve", "q", "--verifier", "code-tests:FILE.py", *MODEL],
    "python": ["solve", "q", "--verifier", "python:FILE.py:f", *MODEL],
    "answer": ["solve", "q", "--answer", "python:FILE.py:f", *MODEL],
}
FITS = {("store", "empty"), ("store", "missing"), ("store", "database"), ("sql", "empty"), ("sql", "database"),
        ("config", "empty"), ("code", "empty"), ("code", "text")}  # fmt: skip


def made(kind: str, path: Path) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "forbidden":
        path.symlink_to(FORBIDDEN)
    elif kind == "database":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE other (a)")
        connection.close()
    elif kind != "missing":
        held = {"empty": b"", "binary": bytes(range(256)) * 4, "text": b"hello there\n", "torn": b"\x1f\x8b\x08\0torn"}
        path.write_bytes(held[kind])


def ended(
    arguments: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[int, str]:
    if kind == "forbidden" and not FORBIDDEN.exists():
        pytest.skip("there is no /proc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOUSE_KEY", "k" * 20)
    (tmp_path / "tenants.toml").write_text('[tenants.a]\nkey_env = "HOUSE_KEY"\nday = { calls = 5 }\n')
    (tmp_path / "tts-plugins.toml").write_text('[profiles.p]\nstrategy = { type = "best-of-n", n = 1 }\n')
    name = next(word for word in arguments if "FILE" in word).partition("FILE")[2].partition(":")[0]
    made(kind, tmp_path / f"it{name}")
    code = main([word.replace("FILE", "it") for word in arguments])
    return code, capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", DATA)
def test_a_file_of_data_that_cannot_be_used_ends_with_6(
    which: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (which, kind) in FITS:
        pytest.skip("that can be used")
    code, err = ended(DATA[which], kind, tmp_path, capsys, monkeypatch)
    last = err.strip().splitlines()[-1]
    assert code == 6, err
    assert last.startswith("tts-plugins: ") and "it" in last
    assert "this should not" not in err and "Traceback" not in err and "unsafely" not in err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", SETTINGS)
def test_a_file_of_settings_that_cannot_be_used_ends_with_2(
    which: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if (which, kind) in FITS:
        pytest.skip("that can be used")
    code, err = ended(SETTINGS[which], kind, tmp_path, capsys, monkeypatch)
    assert code == 2, err
    assert err.startswith("tts-plugins: ") and "this should not" not in err and "Traceback" not in err
