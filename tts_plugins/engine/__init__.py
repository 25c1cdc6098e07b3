"""The engine: the one place where calls are made, and the ways in."""

from tts_plugins._calls.context import carry_account, current_ledger
from tts_plugins._trace.recorder import Trace
from tts_plugins.engine.dry_run import Cost, CostEstimate, dry_run
from tts_plugins.engine.many import Engine, LocalEngine, solve_many, solve_many_sync, solve_stream
from tts_plugins.engine.solve import SolveEvents, solve, solve_events, solve_sync
from tts_plugins.options import Factory

__all__ = [
    "Cost", "CostEstimate", "Engine", "Factory", "LocalEngine", "SolveEvents", "Trace", "carry_account",
    "current_ledger", "dry_run", "solve", "solve_events", "solve_many", "solve_many_sync", "solve_stream", "solve_sync",
]  # fmt: skip
