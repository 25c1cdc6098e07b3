"""The compute-optimal choice at run time: strategy by difficulty and budget (Snell et al. 2024, 2408.03314)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from tts_plugins._internal.config import check_count, check_flag
from tts_plugins._internal.values import name_of
from tts_plugins.errors import ConfigurationError
from tts_plugins.policies import _json_files as _files
from tts_plugins.policies._base import check_kinds, check_list, same_name
from tts_plugins.policies._execute_plan import follow
from tts_plugins.policies.difficulty import OF_SCORES
from tts_plugins.policies.ladder import Ladder
from tts_plugins.policies.plan import Interval, Plan
from tts_plugins.protocols import Model, Run, SetVerifier, Verifier
from tts_plugins.selection import Aggregate
from tts_plugins.strategies import BaseStrategy
from tts_plugins.types import Problem, Scored

FORMAT, VERSION = "tts-policy", 2


@dataclass(frozen=True, kw_only=True, repr=False)
class ComputeOptimal(BaseStrategy):
    """Starts with the strategy that is best for all problems, looks at the first samples, and adapts to the difficulty.

    The strategy that follows a probe uses all of its samples, so each is paid for once. If no bin of difficulty gained
    anything in the fit, the best fixed strategy runs and nothing is probed. Make a policy with `policies.calibrate`, or
    read one with `from_file`.

    Args:
        plans: one for each budget, by rising budget. The run follows the largest plan that its own budget is sure to
            pay for, else the smallest without its probe.
        budget: samples a problem at most; the largest plan's where left out.
        model, verifier: whose samples and scores it was fitted to; None for any.
        larger: the name of a larger model that some problems go to; give the model itself by `with_larger`.
        any_model, any_verifier: whether others may be used.
        scores: low, middle and high (1 %, 50 %, 99 %) of the scores of the fit, for `check_scores`.
        aggregate: how step scores became one in the fit; None where they were not step scores.
        problems, held_out: how many problems it was fitted to, and on how many others its figures were measured.
        version: of the file format.

    Raises:
        ConfigurationError: no plans, a budget below the smallest plan or its probe, another version; at the call,
            another model or verifier, or a verifier that scores sets, whose scores of a probe mean nothing later.
    """

    plans: tuple[Plan, ...]
    budget: int | None = None
    model: str | None = None
    verifier: str | None = None
    larger: str | None = None
    any_model: bool = False
    any_verifier: bool = False
    scores: Interval | None = None
    aggregate: Aggregate | None = None
    problems: int | None = None
    held_out: int = 0
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigurationError(
                f"ComputeOptimal: version={self.version!r} is not {VERSION}, which this release reads; calibrate again"
            )
        check_list("ComputeOptimal", "plans", self.plans)
        object.__setattr__(self, "plans", tuple(self.plans))
        check_kinds(self)
        for name in ("any_model", "any_verifier"):
            check_flag("ComputeOptimal", name, getattr(self, name))
        budgets = [plan.budget for plan in self.plans]
        if not budgets or budgets != sorted(set(budgets)):
            raise ConfigurationError(
                f"ComputeOptimal: plans for budgets {budgets}; give at least one, by rising budget"
            )
        if self.budget is None:
            return
        check_count("ComputeOptimal", "budget", self.budget)
        if self.budget < budgets[0]:
            first = self.plans[0].stages
            probe = f" (its probe alone takes {first[0].count})" if first else ""
            raise ConfigurationError(
                f"ComputeOptimal: budget={self.budget} is below {budgets[0]}, the smallest that was calibrated{probe}; "
                f"raise it, or calibrate with budgets=({self.budget}, …)"
            )

    def __repr__(self) -> str:
        return f"ComputeOptimal(budgets={[p.budget for p in self.plans]}, budget={self.budget}, model={self.model!r})"

    @classmethod
    def from_file(
        cls, path: str | os.PathLike[str], *, model: Model | str | None = None,
        verifier: Verifier | SetVerifier | str | None = None, larger: Model | None = None, budget: int | None = None,
        any_model: bool = False, any_verifier: bool = False,
    ) -> Self:  # fmt: skip
        """Read the policy in a file that `save` wrote.

        Args:
            path: of the file.
            model, verifier: those that it is to run with; a policy of others is refused, here or at the call.
            larger: the larger model, for a policy that asks one.
            budget: samples a problem at most.
            any_model, any_verifier: whether the policy may have been fitted to others.

        Raises:
            DataError: the file is not a policy, or of another version; names the file and the field.
            ConfigurationError: it was fitted to another model or verifier, or the budget is too small.
        """
        made = _files.read(path, FORMAT, cls, "policy")
        made = replace(
            made, budget=made.budget if budget is None else budget, any_model=any_model, any_verifier=any_verifier
        )
        made._check_names(
            model if isinstance(model, str) else getattr(model, "name", None),
            verifier if isinstance(verifier, str) else name_of(verifier),
        )
        return made if larger is None else made.with_larger(larger)

    def with_larger(self, model: Model) -> Self:
        """Return the same policy with the larger model that it may ask.

        Raises:
            ConfigurationError: `model` is not a model, or not the one of the fit, and `any_model` is not set.
        """
        given: Any = model
        if not isinstance(given, Model):
            raise ConfigurationError(f"ComputeOptimal: larger={model!r} is not a model; pass one of tts_plugins.models")
        self._check_name("larger", self.larger, model.name, self.any_model)

        def with_it(plan: Plan) -> Plan:
            ladder = plan.fixed
            if not isinstance(ladder, Ladder):
                return plan
            return replace(plan, fixed=ladder.with_models(dict.fromkeys(ladder.names, model)))

        return replace(self, plans=tuple(map(with_it, self.plans)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON; the file appears whole or not at all."""
        _files.write(path, FORMAT, self)

    def calls(self) -> tuple[int, int]:
        """Return the least and the most generations that whole-answer strategies ask for."""
        return 1, self._cap

    @property
    def needs_scores(self) -> bool:
        """Whether a plan, or what it looks at, goes by scores."""
        stages = [stage for plan in self.plans for stage in plan.stages]
        chosen = [
            *(plan.fixed for plan in self.plans),
            *(c for stage in stages for c in stage.choices if c is not None),
        ]
        return any(s.difficulty.signal in OF_SCORES for s in stages) or any(c.needs_scores for c in chosen)

    def check_scores(self, scores: Sequence[float]) -> None:
        """Compare some scores of a verifier with the scale that the policy was fitted to.

        Raises:
            ConfigurationError: their median lies outside of all but 1 % of the fit's scores on either side.
        """
        if self.scores is None or not scores:
            return
        middle = sorted(scores)[len(scores) // 2]
        low, _, high = self.scores
        if not low <= middle <= high:
            raise ConfigurationError(
                f"ComputeOptimal: scores around {middle:.3g} are on another scale than those of the fit, {low:.3g} to "
                f"{high:.3g}; calibrate on a pool of this verifier's scores, or fit it a verifiers.Calibrated"
            )

    @property
    def abstains(self) -> bool:
        """Whether a plan withholds answers that are not sure enough."""
        return any(plan.abstain is not None and plan.abstain.below is not None for plan in self.plans)

    @property
    def _cap(self) -> int:
        return self.plans[-1].budget if self.budget is None else self.budget

    async def __call__(self, run: Run, problem: Problem) -> Scored:
        self._check_names(name_of(run.model), name_of(run.verifier))
        self._check_aggregate(getattr(run.verifier, "aggregate", None))
        room = await run.room(problem, self._cap)
        fitting = [plan for plan in self.plans if plan.budget <= room]
        plan = fitting[-1] if fitting else self.plans[0]
        if not fitting:
            plan = replace(plan, stages=())
            run.note(
                "doubt", said=f"the policy's smallest plan is for {plan.budget} samples, and the budget is sure to pay "
                f"for {room} only: what it promises may not hold; calibrate with budgets=({max(room, 1)}, …)",
            )  # fmt: skip
        run.note("plan", budget=plan.budget, room=room, fixed=repr(plan.fixed), stages=len(plan.stages))
        if plan.abstain is not None and plan.abstain.below is not None:
            run.note("threshold", below=plan.abstain.below)
        if plan.stages and isinstance(run.verifier, SetVerifier):
            raise ConfigurationError(
                f"ComputeOptimal: {run.verifier.name} scores candidates against each other, and the probe's scores "
                "would mean something else later; use one that scores one at a time, or the plan's fixed strategy"
            )
        return await follow(run, problem, plan)

    def _check_names(self, model: str | None, verifier: str | None) -> None:
        self._check_name("model", self.model, model, self.any_model)
        self._check_name("verifier", self.verifier, verifier, self.any_verifier)

    def _check_name(self, kind: str, mine: str | None, theirs: str | None, allowed: bool) -> None:
        if allowed or same_name(mine, theirs):
            return
        flag = "any_verifier" if kind == "verifier" else "any_model"
        raise ConfigurationError(
            f"ComputeOptimal: it was fitted to {kind} {mine!r}, and runs with {theirs!r}; calibrate on a pool of that "
            f"one, or say {flag}=True"
        )

    def _check_aggregate(self, theirs: object) -> None:
        if not self.any_verifier and self.aggregate is not None and theirs not in (None, self.aggregate):
            raise ConfigurationError(
                f"ComputeOptimal: it was fitted to the {self.aggregate!r} of step scores, and the verifier takes "
                f"{theirs!r}; give the verifier aggregate={self.aggregate!r}, or say any_verifier=True"
            )
