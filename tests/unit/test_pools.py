from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from tts_plugins.bench.assignment import check_assignment
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem, PoolWriter
from tts_plugins.testing.synthetic import synthetic_pool

HEAD = {"format": "tts-pool", "version": 1, "model": "m", "dataset": "d"}
LINE = {"id": "a", "prompt": "q", "answer": "1", "level": 2,
        "candidates": [{"answer": "1", "tokens": 3, "correct": True}]}  # fmt: skip


def written(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_round_trip_keeps_everything(tmp_path: Path) -> None:
    pool = synthetic_pool(5, 4)
    bare = PoolCandidate(text=None, answer=None, tokens=None, correct=None, truncated=True, extra={"seed": 5})
    odd = PoolProblem(id="odd", level="hard", prompt_tokens=7, extra={"examples": ["x"]}, candidates=(bare,))
    pool = replace(pool, problems=(*pool.problems, odd), header=replace(pool.header, note="n", extra={"run": 1}))
    pool.write(tmp_path / "p.jsonl.gz")
    assert Pool.read(tmp_path / "p.jsonl.gz") == pool
    assert [f.name for f in tmp_path.iterdir()] == ["p.jsonl.gz"]


def test_the_same_pool_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        synthetic_pool(3, 3).write(tmp_path / name)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def test_plain_files_are_read_too(tmp_path: Path) -> None:
    assert Pool.read(written(tmp_path / "p.jsonl", HEAD, LINE)).problems[0].candidates[0].tokens == 3


def test_a_broken_off_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "p.gz"
    synthetic_pool(2, 2).write(path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stop"), PoolWriter(path, PoolHeader(model="m", dataset="d")) as writer:
        writer.add(synthetic_pool(1, 1).problems[0])
        raise RuntimeError("stop")
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ([], "empty"),
        (["{"], "line 1: not JSON"),
        ([[1]], "line 1: list, but an object"),
        ([{**HEAD, "format": "x"}], "line 1, format: 'x'"),
        ([{**HEAD, "version": 2}], "line 1, version: 2 is newer"),
        ([{**HEAD, "version": True}], "line 1, version: True"),
        ([{"format": "tts-pool", "version": 1, "model": "m"}], "line 1, dataset: is missing"),
        ([HEAD, "{]"], "line 2: not JSON"),
        ([HEAD, {**LINE, "id": ""}], "line 2, id: ''"),
        ([HEAD, {**LINE, "id": 3}], "line 2, id: 3"),
        ([HEAD, LINE, LINE], "line 3, id: 'a' stands in line 2"),
        ([HEAD, {**LINE, "level": 1.5}], "line 2, level: 1.5"),
        ([HEAD, {k: v for k, v in LINE.items() if k != "candidates"}], "line 2, candidates: is missing"),
        ([HEAD, {**LINE, "candidates": [7]}], r"candidates\[0\]: int"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1"}]}], r"candidates\[0\], correct: is missing"),
        ([HEAD, {**LINE, "candidates": [{"correct": True}]}], r"candidates\[0\], answer: is missing"),
        ([HEAD, {**LINE, "candidates": [{"answer": 1, "correct": True}]}], r"candidates\[0\], answer: 1"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1", "correct": 1}]}], r"candidates\[0\], correct: 1"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1", "correct": True, "tokens": -1}]}], r"tokens: -1"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1", "correct": True, "score": 2}]}], r"score: 2 is outside"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1", "correct": True, "step_scores": [0, "x"]}]}], r"scores\[1\]"),
        ([HEAD, {**LINE, "candidates": [{"answer": "1", "correct": True, "step_scores": [float("nan")]}]}], r"nan"),
    ],
)  # fmt: skip
def test_a_malformed_line_names_file_line_and_field(tmp_path: Path, lines: list[object], where: str) -> None:
    with pytest.raises(DataError, match=where) as caught:
        Pool.read(written(tmp_path / "bad.jsonl", *lines))
    assert "bad.jsonl" in str(caught.value)


def test_a_cut_gzip_file_is_named(tmp_path: Path) -> None:
    synthetic_pool(20, 20).write(tmp_path / "p.gz")
    whole = (tmp_path / "p.gz").read_bytes()
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.gz"):
        Pool.read(tmp_path / "cut.gz")
    (tmp_path / "text.gz").write_bytes(gzip.compress(b"\xff\xfe"))
    with pytest.raises(DataError, match="line 1"):
        Pool.read(tmp_path / "text.gz")


def test_folds_share_nothing_and_lose_nothing() -> None:
    pool = synthetic_pool(11, 2)
    a, b = pool.split(2, seed=3)
    assert {len(a.problems), len(b.problems)} == {5, 6}
    assert {p.id for p in a.problems} | {p.id for p in b.problems} == {p.id for p in pool.problems}
    assert pool.split(2, seed=3) == (a, b)
    with pytest.raises(ConfigurationError, match="parts=12"):
        pool.split(12)


def test_scores_come_from_the_whole_or_the_steps() -> None:
    assert PoolCandidate(step_scores=(0.2, 0.9)).scored("min") == 0.2
    assert PoolCandidate(step_scores=(0.2, 0.9), score=0.5).scored("min") == 0.5
    assert PoolCandidate().scored() is None


def moved(pool: Pool, candidates: list[tuple[PoolCandidate, ...]]) -> Pool:
    problems = zip(pool.problems, candidates, strict=True)
    return replace(pool, problems=tuple(replace(p, candidates=c) for p, c in problems))


def test_a_sound_pool_passes_the_assignment_check() -> None:
    for seed in range(5):
        found = check_assignment(synthetic_pool(30, 12, seed=seed))
        assert found.findings == () and set(found.checked) == {"mixed", "swapped", "misplaced", "rotated"}
        found.raise_for_findings()


@pytest.mark.parametrize("shift", [1, 7])
def test_a_rotated_pool_is_found(shift: int) -> None:
    pool = synthetic_pool(30, 12)
    rows = [p.candidates for p in pool.problems]
    found = check_assignment(moved(pool, rows[-shift:] + rows[:-shift]))
    assert {f.kind for f in found.findings} == {"misplaced", "rotated"}
    assert any(f"{30 - shift} places on" in f.detail for f in found.findings)
    with pytest.raises(DataError, match="wrong problems"):
        found.raise_for_findings()


def test_a_batch_that_was_sliced_across_problems_is_found() -> None:
    pool = synthetic_pool(30, 12)
    flat = [c for p in pool.problems for c in p.candidates]
    found = check_assignment(moved(pool, [tuple(flat[i::30]) for i in range(30)]))
    assert "mixed" in {f.kind for f in found.findings}


def test_two_problems_with_swapped_candidates_are_found() -> None:
    pool = synthetic_pool(30, 12)
    easy = [i for i, p in enumerate(pool.problems) if sum(bool(c.correct) for c in p.candidates) > 8][:2]
    rows = [list(p.candidates) for p in pool.problems]
    a, b = easy
    rows[a][2:5], rows[b][2:5] = rows[b][2:5], rows[a][2:5]
    found = check_assignment(moved(pool, [tuple(r) for r in rows]))
    assert [f.problems for f in found.findings if f.kind == "swapped"] == [(f"p{a}", f"p{b}")]


def test_two_problems_with_all_candidates_swapped_are_found_by_their_golds() -> None:
    pool = Pool(header=PoolHeader(model="m", dataset="d"), problems=tuple(
        PoolProblem(id=f"p{i}", answer=str(100 + i), candidates=tuple(
            PoolCandidate(answer=str(100 + i if k < 14 else 900 + k), tokens=5) for k in range(16)))
        for i in range(24)))  # fmt: skip
    rows = [p.candidates for p in pool.problems]
    rows[3], rows[8] = rows[8], rows[3]
    assert check_assignment(pool).findings == ()
    assert [f.problems for f in check_assignment(moved(pool, rows)).findings] == [("p3", "p8")]
    # An answer that a third problem has too, as small numbers are everywhere, proves nothing.
    rows[5] = (*rows[5][:-2], replace(rows[5][0], answer="103"), replace(rows[5][0], answer="108"))
    assert not check_assignment(moved(pool, rows)).findings


def test_classes_of_answers_cannot_be_compared_across_problems() -> None:
    pool = synthetic_pool(10, 6)
    rng = random.Random(0)
    bare = [tuple(replace(c, text=None, answer=f"g{rng.randrange(3)}") for c in p.candidates) for p in pool.problems]
    assert check_assignment(moved(pool, bare)).checked == ()


def test_a_score_of_zero_is_a_score(tmp_path: Path) -> None:
    candidate = PoolCandidate(text="x", answer="x", correct=False, score=0.0, step_scores=(0.0,))
    problem = PoolProblem(id="a", prompt_tokens=0, candidates=(candidate,))
    pool = replace(synthetic_pool(1, 1), problems=(problem,))
    pool.write(tmp_path / "p.gz")
    assert Pool.read(tmp_path / "p.gz") == pool


def test_a_pool_is_gzipped_if_its_name_says_so(tmp_path: Path) -> None:
    pool = synthetic_pool(3, 3)
    for name, packed in (("a.jsonl", False), ("a.jsonl.gz", True)):
        pool.write(tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") is packed and Pool.read(tmp_path / name) == pool
    assert len(list(tmp_path.iterdir())) == 2
