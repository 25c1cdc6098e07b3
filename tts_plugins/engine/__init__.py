"""The engine: the one place where calls are made, and the ways in."""

from tts_plugins._calls.context import carry_account, current_ledger
from tts_plugins._trace.recorder import Trace
from tts_plugins.engine.solve import SolveEvents, solve, solve_events, solve_many, solve_sync

__all__ = [
    "SolveEvents",
    "Trace",
    "carry_account",
    "current_ledger",
    "solve",
    "solve_events",
    "solve_many",
    "solve_sync",
]
