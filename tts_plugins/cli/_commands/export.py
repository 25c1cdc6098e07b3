"""`tts-plugins export`: from recorded samples to training data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tts_plugins._internal.files import writing
from tts_plugins._trace.wording import plural
from tts_plugins.bench.training import Filters, export
from tts_plugins.cli._display.console import Debug, Json, emit, errors, say


def export_command(
    source: Annotated[Path, typer.Argument(metavar="STORE|POOL", help="A pool, or the file of `bench --out`.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Gets train.jsonl and test.jsonl.")],
    format_: Annotated[
        str, typer.Option("--format", metavar="sft|dpo|kto|prm", help="Winners, pairs, labels, or labels of steps.")
    ],
    judge: Annotated[
        str | None,
        typer.Option(metavar="score|votes|correct", help="What makes a sample good; scores where there are some."),
    ] = None,
    min_score: Annotated[float | None, typer.Option(help="Least score of a winner, 0 to 1.")] = None,
    min_agreement: Annotated[float, typer.Option(help="Least share of samples with the winner's answer.")] = 0.0,
    min_margin: Annotated[float, typer.Option(help="Least distance between winner and loser, 0 to 1.")] = 0.0,
    per_problem: Annotated[int, typer.Option(help="Winners, or pairs, of a problem at most.")] = 1,
    threshold: Annotated[float, typer.Option(help="Score from which on a step counts as right (prm).")] = 0.5,
    aggregate: Annotated[str, typer.Option(metavar="last|min|prod|mean", help="How step scores become one.")] = "last",
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system message for every prompt.")] = None,
    test_share: Annotated[float, typer.Option(help="Share of the problems in test.jsonl; 0 for none.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write training data that TRL reads: what test-time compute has found, to be distilled into a model.

    [dim]tts-plugins export samples.jsonl.gz --format dpo --min-margin 0.3 --out data/[/]

    [dim]tts-plugins export bench.sqlite --format sft --judge correct --out data/[/]
    """
    with errors(debug):
        filters = Filters(
            judge=judge, min_score=min_score, min_agreement=min_agreement, min_margin=min_margin,  # type: ignore[arg-type]
            per_problem=per_problem, threshold=threshold, aggregate=aggregate, system=system,  # type: ignore[arg-type]
        )  # fmt: skip
        with writing(out):
            made = export(source, out, format=format_, filters=filters, test_share=test_share, seed=seed)  # type: ignore[arg-type]
        for reason, count in sorted(made.dropped.items()):
            say(f"left out: {count} {reason}")
        if made.judge is not None:
            say(f"good is judged by: {made.judge}")
        rows, problems = plural(made.train, "row"), plural(made.problems, "problem")
        say(f"{rows} of training, {made.test} of test, from {problems}")
        say("written: " + ", ".join(map(str, made.files)))
        if as_json:
            emit({"train": made.train, "test": made.test, "problems": made.problems, "dropped": dict(made.dropped),
                  "judge": made.judge, "files": [str(path) for path in made.files]})  # fmt: skip
