"""An estimate for a terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from tts_plugins._trace.wording import money
from tts_plugins.engine.dry_run import CostEstimate


def rendered(estimate: CostEstimate) -> Group:
    """Return the estimate as a table between sentences."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "calls", "prompt tokens", "completion tokens", "tokens", "cost"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, cost in estimate.costs.items():
        figures = (cost.calls, cost.prompt_tokens, cost.completion_tokens, cost.tokens)
        usd = "unknown" if cost.usd is None else money({"usd": cost.usd}) or "$0"
        table.add_row(name.replace("_", " "), *("unknown" if f is None else f"{f:,}" for f in figures), usd)
    head = f"Nothing was sent. {estimate.model} with {estimate.strategy} would take:"
    return Group(Text(head), table, *map(Text, estimate.notes))
