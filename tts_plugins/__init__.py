"""Test-time scaling (TTS) for language models: search, verify and revise under a hard budget."""

from tts_plugins._internal.config import configured_classes as _configured_classes
from tts_plugins._internal.signatures import explain_calls as _explain_calls
from tts_plugins._version import __version__
from tts_plugins.budget import Budget, Limits
from tts_plugins.engine import (
    SolveEvents,
    carry_account,
    current_ledger,
    dry_run,
    solve,
    solve_events,
    solve_many,
    solve_many_sync,
    solve_stream,
    solve_sync,
)
from tts_plugins.ledger import Ledger
from tts_plugins.policies import ComputeOptimal, Ladder
from tts_plugins.strategies import (
    DVTS,
    BeamSearch,
    BestOfN,
    ParticleFilter,
    RecursiveAggregation,
    Revision,
    SelfConsistency,
    TreeSearch,
)
from tts_plugins.strategies.escalation import Escalation
from tts_plugins.types import Abstained, Candidate, Generation, Problem, Result, Score, Scored, Step, Usage

__all__ = [
    "DVTS", "Abstained", "BeamSearch", "BestOfN", "Budget", "Candidate", "ComputeOptimal", "Escalation", "Generation",
    "Ladder", "Ledger", "Limits", "ParticleFilter", "Problem", "RecursiveAggregation", "Result", "Revision", "Score",
    "Scored", "SelfConsistency", "SolveEvents", "Step", "TreeSearch", "Usage", "__version__", "carry_account",
    "current_ledger", "dry_run", "solve", "solve_events", "solve_many", "solve_many_sync", "solve_stream", "solve_sync",
]  # fmt: skip

_explain_calls([Budget, Escalation, Ledger, Limits, *_configured_classes()])
