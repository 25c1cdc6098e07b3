"""Queries run read-only, in time, and in a thread of their own."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tts_plugins import BestOfN, solve
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import SQLVerifier

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shop.db"
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE item (name TEXT, price INT); INSERT INTO item VALUES ('a', 1), ('b', 2);")
    connection.close()
    yield path
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM item").fetchone() == (2,)  # nothing was ever written
    connection.close()


async def scored(verifier: SQLVerifier, text: str) -> Any:
    result = await solve("q", model=ScriptedModel([text]), strategy=BestOfN(n=1), verifier=verifier)
    return result.best


@pytest.mark.parametrize(
    ("text", "score", "says"),
    [
        ("SELECT name FROM item", 1.0, ""),
        ("Here:\n```sql\nSELECT name FROM item ORDER BY name DESC;\n```\nDone.", 1.0, ""),
        ("<think>```sql\nSELECT 1\n```</think>```sql\nSELECT name FROM item\n```", 1.0, ""),
        ("SELECT name FROM item WHERE price > 1", 0.0, "not the expected ones"),
        ("SELECT nam FROM item", 0.0, "no such column: nam"),
        ("DELETE FROM item", 0.0, "does not read only"),
        ("SELECT 1; DELETE FROM item", 0.0, "more than one statement"),
        ("WITH x AS (SELECT 1) DELETE FROM item", 0.0, "readonly"),
        ("-- DELETE\nSELECT name FROM item", 1.0, ""),
        ("", 0.0, "there is no query"),
        (ENDLESS, 0.0, "longer than 1 s"),
        ("SELECT a.name FROM item a, item b, item c, item d", 0.0, "more than 10 rows"),
    ],
)
async def test_queries(shop: Path, text: str, score: float, says: str) -> None:
    verifier = SQLVerifier(lambda: sqlite3.connect(shop), expected=[("a",), ("b",)], rows=10, timeout=1.0)
    best = await scored(verifier, text or " ") if text else await scored(verifier, "```sql\n\n```")
    assert best.score == score and says in best.feedback
    verifier.close()


async def test_it_runs_on_one_thread_of_its_own(shop: Path) -> None:
    threads: list[int] = []

    def connect() -> sqlite3.Connection:
        threads.append(threading.get_ident())
        return sqlite3.connect(shop)

    verifier = SQLVerifier(connect)
    model = ScriptedModel(["SELECT 1", "SELECT 2", "SELECT x"])
    result = await solve("q", model=model, strategy=BestOfN(n=3), verifier=verifier, seed=1)
    assert sorted(c.score or 0.0 for c in result.candidates) == [0.0, 1.0, 1.0]
    assert len(threads) == 1 and threads[0] != threading.get_ident()
    verifier.close()


async def test_without_a_connection_there_is_no_score() -> None:
    def connect() -> Any:
        raise OSError("no database here")

    with pytest.raises(AllCandidatesFailed, match="no connection, OSError: no database here"):
        await scored(SQLVerifier(connect), "SELECT 1")
    for settings in ({"rows": 0}, {"timeout": 0}):
        with pytest.raises(ConfigurationError):
            SQLVerifier(connect, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="cannot be called"):
        SQLVerifier("shop.db")  # type: ignore[arg-type]
