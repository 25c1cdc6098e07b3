"""The constructors of `BestOfN` and `Refine`: DSPy's arguments, as the settings of a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tts_plugins import BestOfN as BestOfNStrategy
from tts_plugins import Revision
from tts_plugins.errors import ConfigurationError
from tts_plugins.stopping import Threshold
from tts_plugins_dspy._outputs.verdicts import Reward, squash
from tts_plugins_dspy._program import SearchedProgram
from tts_plugins_dspy._settings import AnyVerifier, check_fail_count

RewardFunction = Callable[[dict[str, Any], Any], Any]


class BestOfNProgram(SearchedProgram):
    """`BestOfN`, but for its name."""

    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: RewardFunction | None = None,
        threshold: float | None = None,
        fail_count: int | None = None,
        *,
        n: int | None = None,
        verifier: AnyVerifier | None = None,
        wave: int | None = None,
        **settings: Any,
    ) -> None:
        """Take DSPy's arguments.

        Args:
            module: any `dspy.Module`.
            N, n: candidates at most; either name.
            reward_fn: from the inputs and a prediction to a number, higher is better; or to a pair, a dict or a
                `dspy.Prediction` of `score` and `feedback`. The number stands in `details["reward"]` of the candidate;
                its score is the number squashed into [0, 1].
            threshold: a reward that is good enough: candidates are then begun in waves of 1, 2, 4, …, until one has it.
            fail_count: how many candidates may fail; one more, and its exception is raised. By default the search goes
                on as long as any candidate is left.
            wave: candidates begun at once under a threshold: with `wave=N`, all of them, in one round.
            settings: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold`
                is one.

        Raises:
            ConfigurationError: there is neither or both of two, or a setting is wrong.
        """
        count, scoring, stop = _short_form("BestOfN", N, n, reward_fn, threshold, verifier, settings)
        fails = check_fail_count("BestOfN", fail_count)
        strategy = BestOfNStrategy(n=count, stop=stop, wave=wave)
        super().__init__(module, strategy=strategy, verifier=scoring, **settings)
        self._fail_count = fails


class RefineProgram(SearchedProgram):
    """`Refine`, but for its name."""

    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: RewardFunction | None = None,
        threshold: float | None = None,
        fail_count: int | None = None,
        *,
        n: int | None = None,
        chains: int = 1,
        verifier: AnyVerifier | None = None,
        **settings: Any,
    ) -> None:
        """Take DSPy's arguments.

        Args:
            module: any `dspy.Module`.
            N, n: attempts at most, over all chains; either name.
            reward_fn: from the inputs and a prediction to a number, higher is better, as for `BestOfN`; the feedback
                beside it is shown to the next attempt.
            threshold: a reward that is good enough to end a chain.
            fail_count: how many attempts may fail; one more, and its exception is raised. By default a chain goes on
                after a failed attempt, whose failure is the feedback that the next one is shown.
            chains: first attempts, which are then refined side by side; `N` is shared evenly among them.
            settings: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold`
                is one.

        Raises:
            ConfigurationError: there is neither or both of two, `N` is no multiple of `chains`, the module has no
                predictor, or a setting is wrong.
        """
        if settings.pop("wave", None) is not None:
            raise ConfigurationError("Refine: wave= is for BestOfN; attempts run side by side with chains=")
        count, scoring, stop = _short_form("Refine", N, n, reward_fn, threshold, verifier, settings)
        if isinstance(chains, bool) or not isinstance(chains, int) or chains < 1 or count % chains:
            raise ConfigurationError(f"Refine: N={count} attempts cannot be shared evenly by chains={chains!r}")
        fails = check_fail_count("Refine", fail_count)
        strategy = Revision(chains=chains, rounds=count // chains, select="best", stop=stop)
        super().__init__(module, strategy=strategy, verifier=scoring, **settings)
        self._fail_count = fails


def _short_form(
    who: str, N: Any, n: Any, reward_fn: Any, threshold: Any, verifier: Any, settings: dict[str, Any]
) -> tuple[int, Any, Threshold | None]:
    """The number of attempts, what scores them, and when a score is good enough.

    Raises:
        ConfigurationError: there is neither or both of two, or one of them is wrong.
    """
    if (N is None) == (n is None):
        raise ConfigurationError(f"{who}: N={N!r} and n={n!r}; give one of the two")
    count = N if n is None else n
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigurationError(f"{who}: N={count!r} must be a whole number of at least 1")
    if (reward_fn is None) == (verifier is None):
        raise ConfigurationError(f"{who}: give reward_fn=… (any number) or verifier=… (from 0 to 1), one of the two")
    if "strategy" in settings:
        raise ConfigurationError(f"{who}: strategy={settings['strategy']!r} is for Scaled; leave it out, or use Scaled")
    number = isinstance(threshold, int | float) and not isinstance(threshold, bool) and not math.isnan(threshold)
    if threshold is not None and not number:
        raise ConfigurationError(f"{who}: threshold={threshold!r} must be a number")
    least = threshold if threshold is None or reward_fn is None else squash(threshold)
    scoring = verifier if reward_fn is None else Reward(reward_fn, who)
    return count, scoring, None if least is None else Threshold(least)
