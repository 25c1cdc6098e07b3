"""The examples run: on a loopback server always, on the embedded model where its engine and weights are here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain")
pytest.importorskip("langchain_openai")
pytest.importorskip("aiohttp")

from tts_plugins.testing.loopback import LoopbackServer, Reply

ROOT = Path(__file__).parents[2]


def run(name: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT), str(ROOT / "integrations")])}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def slogan(body: dict[str, Any], index: int) -> str:
    return ["A bird of a phone", '"Kestrel: see more"', "Kestrel sees more"][index % 3]


def menu(body: dict[str, Any], index: int) -> str | Reply:
    last = body["messages"][-1]
    if last["role"] == "tool":
        return f"It costs {last['content']} euros."
    return Reply(None, tool_calls=[{"name": "price_of", "arguments": {"item": "tea" if index % 4 == 0 else "coffee"}}])


def test_the_chain() -> None:
    with LoopbackServer(reply=slogan, indexing="arrival") as server:
        said = run("langchain_chain.py", "--base-url", server.base_url)
    assert "score 1.00" in said and "stop_rule" in said


def test_the_agent() -> None:
    with LoopbackServer(reply=menu, indexing="arrival") as server:
        said = run("langgraph_agent.py", "--base-url", server.base_url)
    assert "It costs 4 euros." in said and "one of 4 candidates" in said and "'calls': 8" in said


@pytest.mark.engine
@pytest.mark.parametrize("name", ["langchain_chain.py", "langgraph_agent.py"])
def test_on_the_embedded_model(name: str) -> None:
    pytest.importorskip("xllamacpp")
    assert run(name, "-n", "2").strip()
