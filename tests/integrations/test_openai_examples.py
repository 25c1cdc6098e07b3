"""The example runs: on a loopback server always, on the embedded model where its engine and weights are here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from tts_plugins.testing.loopback import LoopbackServer

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT), str(ROOT / "integrations")])}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "openai_client.py"), *arguments],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def extraction(body: dict[str, Any], index: int) -> str:
    right = '{"seller": "Kestrel Ltd", "count": 3, "each": 20, "total": 60}'
    return ["Kestrel", '{"seller": "Kestrel Ltd"}', right][index % 3]


def test_on_a_server() -> None:
    with LoopbackServer(reply=extraction, indexing="arrival") as server:
        said = run("--base-url", server.base_url)
    assert "score 1.00" in said and "stop_rule" in said


@pytest.mark.engine
def test_on_the_embedded_model() -> None:
    pytest.importorskip("xllamacpp")
    assert "asked once" in run("-n", "2")
