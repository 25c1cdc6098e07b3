"""`tts-plugins train-verifier`: train a process verifier, and measure it on held-out problems."""

from __future__ import annotations

import asyncio
import html as escaping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tts_plugins.bench.analysis.heldout import ENOUGH, Heldout, measure
from tts_plugins.cli._arguments import build as _build
from tts_plugins.cli._arguments import options
from tts_plugins.cli._display.console import (
    Debug,
    Download,
    Json,
    check_writable,
    emit,
    emit_text,
    errors,
    say,
    start_local,
    stderr,
    write_file,
)
from tts_plugins.errors import ConfigurationError, DataError
from tts_plugins.models import EmbeddingModel
from tts_plugins.pools import Pool
from tts_plugins.selection import Aggregate, check_aggregate
from tts_plugins.verifiers import LearnedHead
from tts_plugins.verifiers.learned import labelled


def train_verifier(
    rollouts: Annotated[Path, typer.Argument(metavar="ROLLOUTS", help="What `tts-plugins rollouts` made.")],
    out: Annotated[Path, options.PLAIN("Where the verifier goes, as .npz.", metavar="FILE")],
    embedding_model: Annotated[
        str | None,
        options.PLAIN("A model's name on a server, or a GGUF file; the embedded one if left out.", metavar="NAME"),
    ] = None,
    base_url: options.BaseUrl = None,
    api_key_env: options.ApiKeyEnv = None,
    pooling: Annotated[str, options.PLAIN("Of a local model's hidden states.", metavar="last|mean")] = "last",
    threads: options.Threads = None,
    aggregate: Annotated[str, options.PLAIN("How step scores become one.", metavar="last|min|prod|mean")] = "last",
    held_out: Annotated[float, options.PLAIN("Share of the problems to measure it on; it never sees them.")] = 0.3,
    seed: Annotated[int, options.PLAIN("Which problems are held out.")] = 0,
    page: Annotated[
        Path | None, options.PLAIN("Write the reliability diagram into an HTML page.", "--html", metavar="FILE")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Train a process verifier on rollouts, and measure it on held-out problems.

    AUC is the probability that a right solution scores above a wrong one, with a 95 % interval over problems. The
    diagram shows, for each bin of step scores, the score and the share of continuations that ended right.

    [dim]tts-plugins train-verifier rollouts.jsonl --out verifier.npz --html reliability.html[/]
    """
    with errors(debug):
        check_aggregate("--aggregate", aggregate)
        if not 0 < held_out < 1:
            raise ConfigurationError(f"--held-out {held_out} must be between 0 and 1")
        for path, option in ((out, "--out"), (page, "--html")):
            check_writable(path, option)
        pool = _usable(rollouts)
        download = Download(stderr())
        embedder = _build.embedder_of(
            embedding_model, base_url=base_url, api_key_env=api_key_env, pooling=pooling, threads=threads,
            progress=download,
        )  # fmt: skip
        start_local(download, embedder)
        how: Any = aggregate
        head, found = asyncio.run(_train(pool, embedder, how, held_out, seed))
        head.save(out)
        if page is not None:
            write_file(page, _page(head, found))
        if as_json:
            emit(
                {
                    "out": str(out),
                    "embedding": head.embedding,
                    "about": dict(head.about),
                    "held_out": None if isinstance(found, str) else found.to_dict(),
                }
            )
            return
        about = head.about
        say(f"trained on {about['problems']} problems of {about['model']}, {about['rounds']} rounds: {out}")
        emit_text(_text(found))


async def _train(
    pool: Pool, embedder: EmbeddingModel, how: Aggregate, share: float, seed: int
) -> tuple[LearnedHead, Heldout | str]:
    from tts_plugins.metrics import hold_out  # numpy

    reported = 0

    def tell(done: int, total: int) -> None:
        nonlocal reported
        if done == total or done - reported >= max(200, total // 10):
            reported = done
            say(f"{done} of {total} beginnings embedded")

    try:
        table = await labelled(pool, embedder, tell)
    finally:
        await embedder.aclose()
    train, test = hold_out(len(pool.problems), share, seed)
    about = {
        "model": pool.header.model, "dataset": pool.header.dataset, "problems": len(train),
        "separator": pool.header.extra.get("separator"),
    }  # fmt: skip
    head = LearnedHead.of(table.of(train), embedding=embedder.name, aggregate=how, seed=seed, about=about)
    scores = [head.predicted(table, problem) for problem in test]
    return head, _measured(pool, test, scores, how, seed)


def _measured(pool: Pool, test: Sequence[int], scores: Any, how: Aggregate, seed: int) -> Heldout | str:
    """Measure the verifier, or say why that is impossible; it is trained in either case."""
    if len(test) < ENOUGH:
        return (
            f"held out: {len(test)} problems: too few to say what it is worth; make rollouts of more, or hold out at "
            f"least {ENOUGH} (--held-out)"
        )
    try:
        return measure([pool.problems[i] for i in test], scores, how, seed=seed)
    except ValueError as error:
        return f"held out: {len(test)} problems, which cannot tell what it is worth: {error}"


def _usable(path: Path) -> Pool:
    """Read the rollouts, without problems that have no labelled solution."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file; `tts-plugins rollouts` makes rollouts")
    pool = Pool.read(path)
    problems = tuple(p for p in pool.problems if p.candidates)
    if len(problems) < 6:
        raise DataError(f"{path}: {len(problems)} problems with labelled solutions; at least 6 are needed")
    return replace(pool, problems=problems)


def _text(found: Heldout | str) -> str:
    return found if isinstance(found, str) else found.text()


def _page(head: LearnedHead, found: Heldout | str) -> str:
    title = escaping.escape(f"A verifier of {head.about.get('model')} on {head.embedding}")
    chart = "" if isinstance(found, str) else found.reliability.svg()
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<body style="font-family:sans-serif;margin:2rem"><h1>{title}</h1>\n{chart}\n'
        f"<pre>{escaping.escape(_text(found))}</pre></body></html>\n"
    )
