"""A result for a person."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from tts_plugins._trace.wording import STOPPED, bounded, money, oneline, plural, seconds
from tts_plugins.cli._display.error_messages import with_options
from tts_plugins.cli._display.progress import Row, Seen
from tts_plugins.cli._display.solve_view import candidates
from tts_plugins.types import Result

SHOWN = 20


def summary(console: Console, result: Result) -> None:
    """Print the candidates and what they cost on stderr, so that stdout holds the answer only."""
    if console.is_terminal and len(result.candidates) > 1:
        seen = Seen(scored=any(c.score is not None for c in result.candidates))
        for c in result.candidates:
            seen.rows[c.id] = Row(c.index, oneline(c.text), c.vote, c.score, None, True)
        chosen, rows = seen.rows[result.best.id], list(seen.rows.values())
        shown = rows if len(rows) <= SHOWN else rows[:SHOWN]
        console.print(candidates(shown if chosen in shown else [*shown[:-1], chosen], seen, chosen))
        if len(rows) > SHOWN:
            console.print(Text(f"… and {len(rows) - SHOWN} more; --trace, --html or --json show all", style="dim"))
    console.print(Text(_closing(result), style="dim"), soft_wrap=True)


def _closing(result: Result) -> str:
    usage = result.usage.to_dict()
    score = "" if result.score is None else f"score {result.score:.2f}; "
    score = score if result.abstained is None else f"no answer: {oneline(result.abstained.reason)}; "
    if result.confidence is not None and result.confidence != result.score:
        score += f"confidence {result.confidence:.2f}; "
    cost = "cost unknown" if result.usage.usd is None else money(usage)
    parts = [
        plural(len(result.candidates), "candidate"),
        plural(result.usage.calls, "call"),
        f"{bounded(usage, result.usage.tokens)} tokens",
        *filter(None, (cost,)),
        seconds(result.usage.seconds),
    ]
    # "complete" goes without saying.
    ended = "" if result.stopped == "complete" else f"; ended because {STOPPED[result.stopped]}"
    cut = "; the answer was cut at --max-tokens" if result.best.truncated else ""
    if result.best.truncated and not result.best.finished:
        cut = "; the answer is unfinished"
    told = "" if result.abstained is None else result.abstained.reason
    warned = "".join(f"; {oneline(with_options(warning))}" for warning in result.warnings if warning not in told)
    return f"{score}{', '.join(parts)}{ended}{cut}{warned}; seed {result.seed}"
