"""The nouns: what is asked, what comes back, and what it cost."""

from tts_plugins.types._frozen import EMPTY, Deferred, held_output
from tts_plugins.types._json import json_form, well_formed
from tts_plugins.types.candidate import Candidate, Generation, Reply, Score, Scored, Step
from tts_plugins.types.problem import REQUEST, Message, Problem
from tts_plugins.types.result import Abstained, OnAbstain, Result, Stopped, TraceView
from tts_plugins.types.usage import Usage

__all__ = [
    "EMPTY", "REQUEST", "Abstained", "Candidate", "Deferred", "Generation", "Message", "OnAbstain", "Problem", "Reply",
    "Result", "Score", "Scored", "Step", "Stopped", "TraceView", "Usage", "held_output", "json_form", "well_formed",
]  # fmt: skip
