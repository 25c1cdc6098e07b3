"""The prompts for verdicts and revisions, in one place. Pure: the same arguments give the same messages.

Everything that a candidate wrote appears in these prompts as data: without invisible characters and control tokens,
every line quoted, capped, and between two lines that carry a key that its writer could not know. A verdict must
repeat the key, so that one that a candidate wrote in advance does not count.
"""

from tts_plugins._internal.untrusted_text import frame, make_key, neutralise
from tts_plugins.prompts._attempts import Turns, attempt_text, attempt_turns, merge_turns, revision_turns
from tts_plugins.prompts._problem import problem_text, tool_form, tools_of
from tts_plugins.prompts._verdicts import (
    LIMIT,
    Messages,
    entailment_messages,
    entailment_schema,
    grounded_messages,
    grounded_schema,
    judge_messages,
    judge_schema,
    pairwise_messages,
    pairwise_schema,
    step_messages,
    steps_messages,
    steps_schema,
    verification_messages,
)

__all__ = [
    "LIMIT", "Messages", "Turns", "attempt_text", "attempt_turns", "entailment_messages", "entailment_schema", "frame",
    "grounded_messages", "grounded_schema", "judge_messages", "judge_schema", "make_key", "merge_turns", "neutralise",
    "pairwise_messages", "pairwise_schema", "problem_text", "revision_turns", "step_messages", "steps_messages",
    "steps_schema", "tool_form", "tools_of", "verification_messages",
]  # fmt: skip
