"""`python -m benchmarks.bench_kills`: a benchmark killed with `kill -9` at random moments, twenty times.

The model is a loopback server that counts. After each kill the store is read: what it holds is acknowledged. Then the
same command goes on. At the end nothing acknowledged was lost or asked again, and the rows are those of a run that
nobody killed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

from tts_plugins.bench.storage.store import Store
from tts_plugins.testing.loopback import LoopbackServer

ROOT = Path(__file__).parents[1]
CONCURRENCY = 3
_COMMAND = [sys.executable, "-m", "tts_plugins", "bench"]


@dataclass(frozen=True, kw_only=True)
class Killed:
    """What came of it.

    Attributes:
        kills: that hit the process while it worked.
        replies, solves: acknowledged at some kill, replies of solves under way and whole solves, in sum.
        lost: acknowledged once, and gone after a later kill or at the end.
        paid_twice: requests for something that was acknowledged before.
        again: requests sent a second time because a kill hit them in flight; at most `in_flight`, the requests that
            could be under way at the kills.
        different: solves that are not as in the run that nobody killed, but for their times.
    """

    kills: int
    replies: int
    solves: int
    lost: int
    paid_twice: int
    again: int
    in_flight: int
    different: int

    @property
    def sound(self) -> bool:
        """Whether it keeps its promise."""
        return not (self.lost or self.paid_twice or self.different) and self.again <= self.in_flight


def run(kills: int, *, problems: int = 24, seed: int = 0) -> Killed:
    """Kill a benchmark until it was hit `kills` times, then let it end."""
    rng = random.Random(seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        LoopbackServer(reply="seeded", latency=(0.01, 0.05)) as server,
    ):
        home = Path(folder)
        lines = [json.dumps({"id": f"p{i}", "prompt": f"Question {i}?", "answer": "1"}) for i in range(problems)]
        (home / "problems.jsonl").write_text("\n".join(lines))
        watch = _Watch(server, home)
        hits = 0
        while hits < kills:
            process = watch.start("killed.sqlite")
            if not watch.kill(process, rng):
                if hits < kills and process.returncode == 0:
                    raise RuntimeError(f"it ended after {hits} kills; give it more problems")
                raise RuntimeError(f"it failed by itself: {process.returncode}")
            hits += 1
            watch.look(home / "killed.sqlite")
        watch.finish("killed.sqlite")
        watch.look(home / "killed.sqlite")
        requests = watch.requests()
        watch.finish("whole.sqlite")
        return watch.verdict(hits, requests, home / "killed.sqlite", home / "whole.sqlite")


class _Watch:
    def __init__(self, server: LoopbackServer, home: Path) -> None:
        self._server, self._home = server, home
        self._known: dict[int, int] = {}  # the seed of an acknowledged request: how many requests had come by then
        self._solves: set[tuple[str, str, int]] = set()
        self.replies = self.lost = 0

    def start(self, out: str) -> subprocess.Popen[bytes]:
        command = [
            *_COMMAND, "--problems", "problems.jsonl", "--model", "loopback", "--base-url", self._server.base_url,
            "--strategy", "self-consistency:n=6,wave=1,stop=vote-lead:6", "--seeds", "2", "--max-tokens", "64",
            "--concurrency", str(CONCURRENCY), "--out", out, "--quiet",
        ]  # fmt: skip
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(command, cwd=self._home, env={**os.environ, "PYTHONPATH": paths, "OPENAI_API_KEY": "-"})

    def kill(self, process: subprocess.Popen[bytes], rng: random.Random) -> bool:
        """Kill it a random while after the first replies; return whether it was still at work.

        A request beyond those that it makes at once shows that it has had a reply.
        """
        enough, until = self._server.counts.requests + CONCURRENCY + 1, time.monotonic() + 60
        while self._server.counts.requests < enough and process.poll() is None:
            if time.monotonic() > until:
                raise TimeoutError("no reply was followed by a request within a minute")
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.4))
        hit = process.poll() is None
        process.kill()
        process.wait()
        self._server.wait()
        return hit

    def finish(self, out: str) -> None:
        process = self.start(out)
        if process.wait(timeout=300) != 0:
            raise RuntimeError(f"the benchmark ended with {process.returncode}")

    def requests(self) -> list[int]:
        """The seeds of all requests so far, in order; each candidate of the benchmark has its own."""
        return [int(r.body["seed"]) for r in self._server.requests]

    def look(self, path: Path) -> None:
        """Note what is acknowledged by now, and what was and is gone."""
        seeds = self.requests()
        names = {_call(s): s for s in seeds}
        with Store.read(path) as store:
            solves = store.done()
            done = {c.sent_seed for rows in store.candidates().values() for c in rows if c.sent_seed is not None}
        with sqlite3.connect(path) as db:
            rows = db.execute("SELECT call FROM replies").fetchall()
        db.close()
        self.replies += len(rows)
        self.lost += len(self._solves - solves)
        self._solves |= solves
        # A reply that was acknowledged stays until its solve is.
        known = {names[call] for (call,) in rows} | done
        self.lost += len(set(self._known) - known)
        for s in known:
            self._known.setdefault(s, len(seeds))

    def verdict(self, hits: int, requests: list[int], killed: Path, whole: Path) -> Killed:
        first: dict[int, int] = {}
        twice = again = 0
        for at, s in enumerate(requests):
            if s in first:
                again += 1
                twice += s in self._known and at >= self._known[s]
            first.setdefault(s, at)
        rows = []
        for path in (killed, whole):
            with Store.read(path) as store:
                kept = [replace(s, seconds=0.0, requests=0) for s in store.solves()]
                rows.append((kept, store.candidates()))
        different = sum(a != b for a, b in zip(rows[0][0], rows[1][0], strict=False))
        different += abs(len(rows[0][0]) - len(rows[1][0])) + (rows[0][1] != rows[1][1])
        return Killed(
            kills=hits, replies=self.replies, solves=len(self._solves), lost=self.lost, paid_twice=twice, again=again,
            in_flight=hits * CONCURRENCY, different=different,
        )  # fmt: skip


def _call(seed: int) -> str:
    return hashlib.sha256(json.dumps(["generate", seed]).encode()).hexdigest()[:24] + "/1"


def main() -> int:
    """Print what came of it; 0 where the promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = run(given.kills, problems=max(12, 5 * given.kills), seed=given.seed)
    for f in fields(found):
        print(f"{f.name.replace('_', ' '):12} {getattr(found, f.name)}")
    print("sound" if found.sound else "NOT SOUND")
    return 0 if found.sound else 1


if __name__ == "__main__":
    sys.exit(main())
