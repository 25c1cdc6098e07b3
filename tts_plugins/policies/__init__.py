"""What chooses by what has been seen: rules and strategies that are fitted to recorded runs."""

from tts_plugins.policies.abstention import Abstention
from tts_plugins.policies.aggregates import aggregates
from tts_plugins.policies.calibrate import calibrate, held_out
from tts_plugins.policies.compute_optimal import ComputeOptimal
from tts_plugins.policies.difficulty import Difficulty
from tts_plugins.policies.ladder import Ladder, Rung
from tts_plugins.policies.learned_stopping import LearnedStopping
from tts_plugins.policies.plan import Alternative, Compared, Expected, Measured, Plan, Stage

__all__ = [
    "Abstention", "Alternative", "Compared", "ComputeOptimal", "Difficulty", "Expected", "Ladder", "LearnedStopping",
    "Measured", "Plan", "Rung", "Stage", "aggregates", "calibrate", "held_out",
]  # fmt: skip
