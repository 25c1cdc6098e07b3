"""The constructors of `BestOfN` and `Refine`: DSPy's arguments, as the settings of a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Never, Unpack

from tts_plugins import BestOfN as BestOfNStrategy
from tts_plugins import Revision
from tts_plugins.adapters import as_plain_number, called_as, check_count, check_names, check_placed, is_number, is_whole
from tts_plugins.errors import ConfigurationError, UnknownSettingError
from tts_plugins.protocols import Strategy
from tts_plugins.stopping import Threshold
from tts_plugins_dspy._outputs.verdicts import Reward, squash
from tts_plugins_dspy._program import SearchedProgram
from tts_plugins_dspy._settings import ShortFormOptions, check_fail_count

_OF_DSPY = ("N", "reward_fn", "threshold", "fail_count")
RewardFunction = Callable[[dict[str, Any], Any], Any]


class _ShortForm(SearchedProgram):
    """A program whose strategy is made from DSPy's arguments."""

    def _set_up(
        self,
        module: Any,
        N: int | None,
        reward_fn: RewardFunction | None,
        threshold: float | None,
        fail_count: int | None,
        placed: tuple[Any, ...],
        options: ShortFormOptions,
        own: str,
        strategy_of: Callable[[int, Threshold | None], Strategy],
    ) -> None:
        who, given = type(self).__name__, dict[str, Any](**options)
        check_placed(f"{who}(module, N, reward_fn, threshold, fail_count", placed)
        if "strategy" in given:
            raise ConfigurationError(
                f"{who}: strategy={given['strategy']!r} is for Scaled; leave it out, or use Scaled"
            )
        check_names(who, given, {*ShortFormOptions.__annotations__, *_OF_DSPY, own})
        n, verifier = given.pop("n", None), given.pop("verifier", None)
        if (N is None) == (n is None):
            raise ConfigurationError(f"{who}: N={N!r} and n={n!r}; give one of the two")
        count: Any = as_plain_number(N if n is None else n)
        check_count(who, "N", count)
        if (reward_fn is None) == (verifier is None):
            raise ConfigurationError(
                f"{who}: give reward_fn=… (any number) or verifier=… (from 0 to 1), one of the two"
            )
        least = None if threshold is None else _check_threshold(who, threshold)
        if least is not None and reward_fn is not None:
            least = squash(least)
        fails = check_fail_count(who, as_plain_number(fail_count))
        strategy = strategy_of(count, None if least is None else Threshold(least))
        given["verifier"] = verifier if reward_fn is None else Reward(reward_fn, who)
        super().__init__(module, strategy=strategy, **given)
        self._fail_count = fails


def _check_threshold(owner: str, value: Any) -> float:
    number = as_plain_number(value)
    if isinstance(number, bool) or is_number(number) or (isinstance(number, float) and math.isinf(number)):
        return float(number)
    raise ConfigurationError(f"{owner}: threshold={value!r:.80} must be a number")


class BestOfNProgram(_ShortForm):
    """`BestOfN`, but for its name."""

    @called_as("BestOfN(module, N=8, reward_fn=reward)")
    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: RewardFunction | None = None,
        threshold: float | None = None,
        fail_count: int | None = None,
        *placed: Never,
        wave: int | None = None,
        **options: Unpack[ShortFormOptions],
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
            options: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold`
                is one.

        Raises:
            ConfigurationError: there is neither or both of two, or a setting is wrong.
        """
        self._set_up(
            module, N, reward_fn, threshold, fail_count, placed, options, "wave",
            lambda count, stop: BestOfNStrategy(n=count, stop=stop, wave=as_plain_number(wave)),
        )  # fmt: skip


class RefineProgram(_ShortForm):
    """`Refine`, but for its name."""

    @called_as("Refine(module, N=8, reward_fn=reward)")
    def __init__(
        self,
        module: Any,
        N: int | None = None,
        reward_fn: RewardFunction | None = None,
        threshold: float | None = None,
        fail_count: int | None = None,
        *placed: Never,
        chains: int = 1,
        **options: Unpack[ShortFormOptions],
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
            options: as for `Scaled`; `verifier=` instead of `reward_fn=` gives scores from 0 to 1, and `threshold`
                is one.

        Raises:
            ConfigurationError: there is neither or both of two, `N` is not a multiple of `chains`, the module has no
                predictor, or a setting is wrong.
        """

        if "wave" in options:
            raise UnknownSettingError("Refine: wave= is for BestOfN; attempts run side by side with chains=")

        def strategy(count: int, stop: Threshold | None) -> Revision:
            if not is_whole(chains, 1) or count % chains:
                raise ConfigurationError(f"Refine: N={count} attempts cannot be shared evenly by chains={chains!r}")
            return Revision(chains=chains, rounds=count // chains, select="best", stop=stop)

        self._set_up(module, N, reward_fn, threshold, fail_count, placed, options, "chains", strategy)
