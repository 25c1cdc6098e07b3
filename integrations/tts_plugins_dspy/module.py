"""The programs that this package is for. Their classes are short, since `dspy.MIPROv2` shows their source to its model,
beside that of the user's program: what they do stands in the classes that they extend.
"""

from __future__ import annotations

import inspect

from tts_plugins_dspy._program import SearchedProgram
from tts_plugins_dspy._short_forms import BestOfNProgram, RefineProgram


class Scaled(SearchedProgram):
    """Runs its `module` several times, and answers with the best prediction."""


class BestOfN(BestOfNProgram, Scaled):
    """Runs its `module` several times, and answers with the prediction of the highest reward."""


class Refine(RefineProgram, Scaled):
    """Runs its `module` several times, each time with feedback on the attempts before, and answers with the best."""


Scaled.__doc__ = SearchedProgram.__doc__
BestOfN.__doc__ = """`dspy.BestOfN`, with its arguments: concurrent, with `acall`, under a budget, open to optimisers.

    BestOfN(module, N=3, reward_fn=lambda args, pred: float(len(pred.answer.split()) == 1), threshold=1.0)

""" + inspect.cleandoc(BestOfNProgram.__init__.__doc__ or "")
Refine.__doc__ = """`dspy.Refine`, with its arguments: each attempt sees the ones before, and what was said of them.

    Refine(module, N=3, reward_fn=one_word_answer, threshold=1.0)

Feedback is what the reward function or verifier says, or why an attempt failed. No further model call is made for
advice, every attempt counts for the choice, and nothing is printed. It has `acall`, a budget, and several chains of
attempts side by side.

""" + inspect.cleandoc(RefineProgram.__init__.__doc__ or "")
