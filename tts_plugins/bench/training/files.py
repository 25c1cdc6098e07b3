"""Training data as files: from a pool or a benchmark's store, split by problem, a JSON line for each row."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_plugins._internal.config import check_count
from tts_plugins._internal.files import expanded, is_sqlite, replacing, writing
from tts_plugins.bench.storage.store import Store
from tts_plugins.bench.training.rows import Filters, Format, Judge, Row, check_format, judge_of, training_rows, words
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.pools import Pool, PoolCandidate, PoolHeader, PoolProblem


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    Attributes:
        train, test: rows in each file.
        files: those that were written.
        problems: of the source that gave at least one row.
        dropped: what was left out, by its reason.
        judge: what made a candidate good; None for "prm", which goes by the scores of steps.
    """

    train: int
    test: int
    files: tuple[Path, ...]
    problems: int
    dropped: Mapping[str, int]
    judge: Judge | None = None


def export(
    source: Pool | str | os.PathLike[str], out: str | os.PathLike[str], *, format: Format,
    filters: Filters | None = None, test_share: float = 0.1, seed: int = 0,
) -> Exported:  # fmt: skip
    """Write training data as `train.jsonl` and `test.jsonl` into a folder, which `datasets.load_dataset` reads.

    Problems are split at random, and all rows of a problem are on one side; problems of the same prompt count as one.

    Args:
        source: a pool, or the file of a pool or of a benchmark (`bench --out`), ended or still going.
        out: the folder; it is made. Each file appears whole or not at all.
        format: "sft", "dpo", "kto" or "prm".
        test_share: of the problems that go to `test.jsonl`; 0 writes none.

    Raises:
        ConfigurationError: a setting is wrong, or no row is left.
        DataError: the source cannot be read, or a file cannot be written.
    """
    check_format(format)
    if isinstance(test_share, bool) or not isinstance(test_share, int | float) or not 0 <= test_share < 1:
        raise ConfigurationError(f"export: test_share={test_share!r} must be a number from 0 to below 1")
    filters = Filters() if filters is None else filters
    given: Any = filters
    if not isinstance(given, Filters):
        raise ConfigurationError(f"export: filters={filters!r:.80} must be Filters(…)")
    check_count("export", "seed", seed, least=0)
    folder, files = expanded(out), list[Path]()
    pool = source if isinstance(source, Pool) else pool_of(source)
    dropped: Counter[str] = Counter()
    made = _by_prompt(training_rows(pool.problems, format, filters, dropped))
    if not made:
        why = "; ".join(f"{count} {reason}" for reason, count in dropped.most_common(3)) or "there are no problems"
        raise ConfigurationError(f"export: no row for {format!r} is left ({why}); loosen the filters, or record more")
    keys = sorted(made)
    random.Random(seed).shuffle(keys)
    count = round(test_share * len(keys)) if len(keys) > 1 else 0
    count = min(len(keys) - 1, max(1, count)) if test_share > 0 and len(keys) > 1 else count
    parts = {"test": set(keys[:count]), "train": set(keys[count:])}
    lines = {name: [row for key, rows in made.items() if key in part for row in rows] for name, part in parts.items()}
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "test"):
        path = folder / f"{name}.jsonl"
        if lines[name] or name == "train":
            _write(path, lines[name])
            files.append(path)
        else:
            path.unlink(missing_ok=True)  # of an earlier export: it does not belong to the new data
    return Exported(
        train=len(lines["train"]), test=len(lines["test"]), files=tuple(files), problems=len(made),
        dropped=dict(dropped), judge=None if format == "prm" else judge_of(pool.problems, filters),
    )  # fmt: skip


def _by_prompt(rows: Sequence[Row]) -> dict[str, list[Row]]:
    made: dict[str, list[Row]] = {}
    for row in rows:
        made.setdefault(words(row["prompt"]), []).append(row)
    return made


def _write(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as made, made.open("wb") as file:
        for row in rows:
            # A lone surrogate, which a model's text may hold, has no form in UTF-8.
            file.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())


def pool_of(source: str | os.PathLike[str]) -> Pool:
    """Read a pool, or the candidates of a benchmark's store as one: those of all its arms and seeds together.

    Raises:
        DataError: it is neither, or the store's candidates have no texts, since they stand in a pool.
    """
    path = expanded(source)
    stored = is_sqlite(path, "give a pool, or what `tts-plugins bench --out` wrote")
    return _stored(path) if stored else Pool.read(path)


def _stored(path: Path) -> Pool:
    with Store.read(path) as store:
        config, problems, solves = store.config, store.problems(), store.candidates()
    rows: dict[str, list[PoolCandidate]] = {}
    for (problem, _, _), candidates in solves.items():
        rows.setdefault(problem, []).extend(
            PoolCandidate(
                text=c.text, answer=c.answer, tokens=c.tokens, correct=c.correct, score=c.score,
                step_scores=c.step_scores, truncated=c.truncated,
            )
            for c in candidates
            if c.finished
        )  # fmt: skip
    if rows and not any(c.text for each in rows.values() for c in each):
        raise DataError(f"{path}: its candidates have no texts, since it replayed a pool; export that pool")
    made = tuple(
        PoolProblem(
            id=p.id,
            prompt=p.text,
            answer=p.answer,
            level=p.level,
            candidates=tuple(rows.get(p.id, ())),
            extra={} if p.messages is None else {"messages": json.loads(p.messages)},
        )
        for p in problems
    )
    return Pool(header=PoolHeader(model=_name(config, "model"), dataset=_name(config, "problems")), problems=made)


def _name(config: Mapping[str, Any], key: str) -> str:
    return str(config.get(key) or "unknown")
