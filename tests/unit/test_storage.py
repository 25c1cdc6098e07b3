"""What a benchmark's file, a pool and a fit say where the disk is full, or the file damaged, locked or not writable."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tts_plugins._storage.sqlite_files import lock_file
from tts_plugins.bench.storage.rows import CandidateRow, ProblemRow, SolveKey, SolveRow
from tts_plugins.bench.storage.store import Store
from tts_plugins.errors import DataError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem, PoolWriter

PROBLEMS = [ProblemRow(id="p", text="2 + 2?")]
KEY = SolveKey(problem="p", arm="a", seed=0)
ROW = SolveRow(problem="p", arm="a", seed=0, correct=True, answer="4", score=1.0, chosen=0, stopped="complete")


def opened(path: Path) -> Store:
    return Store.open(path, {"model": "m", "arms": {}}, PROBLEMS)


def test_a_full_disk_names_the_file_and_keeps_what_was_paid_for(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with opened(path) as store:
        store.add_reply(KEY, "first", "paid")
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(DataError, match=r"runs\.db: the disk is full .*make room and run the same command again"):
            store.add_reply(KEY, "second", "x" * 100_000)
        with pytest.raises(DataError, match="the disk is full"):
            store.add([(ROW, [CandidateRow(place=0, answer="4", correct=True, text="x" * 100_000)])])
        assert store.reply(KEY, "first") == "paid" and store.solves() == []


@pytest.mark.parametrize("left", [0.3, 0.6, 0.9])
def test_a_file_that_was_cut(tmp_path: Path, left: float) -> None:
    path = tmp_path / "runs.db"
    with opened(path) as store:
        for i in range(200):
            store.add_reply(KEY, str(i), "x" * 500)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    says = r"runs\.db: the file is damaged or was cut .*restore a copy, or start again"
    with pytest.raises(DataError, match=says), Store.read(path) as store:
        store.candidates()
        store.solves()
        [store.reply(KEY, str(i)) for i in range(200)]


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\x00" + b"\xff" * 200, b"not a database at all, but some text" * 9]
)
def test_what_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runs.db"
    path.write_bytes(content)
    for use in (opened, Store.read):
        with pytest.raises(DataError, match=r"runs\.db: it is not a file of this kind, or is damaged .*choose another"):
            use(path)


def test_a_file_that_another_process_has_locked(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with opened(path) as store:
        store._db.execute("PRAGMA busy_timeout=10")
        other = sqlite3.connect(path)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DataError, match=r"runs\.db: another process has locked it .*let that one end"):
            store.add_reply(KEY, "first", "paid")
        other.close()
        store.add_reply(KEY, "first", "paid")


def test_lone_surrogates_are_kept_as_what_can_be_written(tmp_path: Path) -> None:
    odd = "half \ud83d of a sign"
    with Store.open(tmp_path / "runs.db", {"model": "m"}, [ProblemRow(id="p", text=odd)]) as store:
        store.add([(ROW, [CandidateRow(place=0, answer=odd, correct=None, text=odd)])])
        assert [p.text for p in store.problems()] == ["half \ufffd of a sign"]
        assert store.candidates()["p", "a", 0][0].text == "half \ufffd of a sign"
    pool = Pool(
        header=PoolHeader(model="m", dataset="d"),
        problems=(PoolProblem(id="p", candidates=(PoolCandidate(text=odd, answer="4"),)),),
    )
    pool.write(tmp_path / "pool.jsonl.gz")
    assert Pool.read(tmp_path / "pool.jsonl.gz").problems[0].candidates[0].text == "half ? of a sign"


_SMALL_DISK = """
import resource, sys
from pathlib import Path
from tts_plugins.batch.rows import write_rows
from tts_plugins.bench.training.files import _write as export
from tts_plugins.errors import DataError
from tts_plugins.policies._json_files import write
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem
from tts_plugins.strategies import BestOfN
import random
letters = random.Random(0)
text = "".join(chr(letters.randrange(33, 1000)) for _ in range(200_000))
pool = Pool(header=PoolHeader(model="m", dataset="d"),
            problems=(PoolProblem(id="p", candidates=(PoolCandidate(text=text),)),))
resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
from tts_plugins.verifiers.combined.calibrated import Calibration
from tts_plugins.verifiers.learned._saved_head import LearnedHead
import numpy  # before the limit
folder = sys.argv[1]
weights = LearnedHead(weights=(0.5,) * 3, bias=0.0, embedding="e", logprobs=False)
rising = Calibration(method="platt", x=(), y=(1.0, 0.0), pairs=9)
for use in (
    lambda: pool.write(folder + "/pool.jsonl.gz"), lambda: write(folder + "/fit.json", "k", BestOfN()),
    lambda: rising.save(folder + "/rising.npz"), lambda: weights.save(folder + "/head.npz"),
    lambda: write_rows(Path(folder, "rows.jsonl"), [{"text": text}]),
    lambda: export(Path(folder, "export.jsonl"), [{"text": text}]),
):
    try:
        use()
    except DataError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size")
def test_other_files_on_a_full_disk(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    why = "cannot be written: File too large; make room on the disk, or choose another file"
    names = "pool.jsonl.gz", "fit.json", "rising.npz", "head.npz", "rows.jsonl", "export.jsonl"
    assert done.stdout.splitlines() == [f"{tmp_path}/{name} {why}" for name in names]
    assert list(tmp_path.iterdir()) == []


_SMALL_LOG = """
import os, resource, sys
from tts_plugins.bench.rollouts import RolloutLog
from tts_plugins.errors import DataError
from tts_plugins.pools import PoolCandidate, PoolHeader, PoolProblem

path, header = sys.argv[1], PoolHeader(model="m", dataset="d")
one, two = (PoolProblem(id=name, candidates=(PoolCandidate(text="x" * 99),)) for name in ("one", "two"))
log = RolloutLog(path, header)
log.add(one)
size = os.path.getsize(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
try:
    log.add(two)
except DataError as error:
    print(error)
print(os.path.getsize(path) == size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
RolloutLog(path, header).add(two)
print(*(problem.id for problem in RolloutLog(path, header).pool.problems))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size")
def test_rollouts_on_a_full_disk_keep_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", _SMALL_LOG, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    why = f"{path} cannot be written: File too large; make room on the disk, or choose another file"
    assert (done.stderr, done.stdout.splitlines()) == ("", [why, "True", "one two"])


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    writer = PoolWriter(tmp_path / "none" / "pool.jsonl.gz", PoolHeader(model="m", dataset="d"))
    with pytest.raises(DataError, match=r"none/pool\.jsonl\.gz cannot be written: No such file.*check its folder"):
        writer.__enter__()


def test_a_lock_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.sqlite.lock").write_bytes(b"something else, of many bytes " * 50)
    with pytest.raises(DataError, match=r"run\.sqlite\.lock: it is not a file of this kind"):
        lock_file(tmp_path / "run.sqlite")
