"""The model of an adapter whose framework makes the calls: metered, and driven by the search that it runs in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from tts_plugins._calls.context import SCOPE
from tts_plugins._internal.values import effort_fields
from tts_plugins.adapters._charge import is_fatal
from tts_plugins.budget import Bound, Limits
from tts_plugins.errors import ConfigurationError, ModelError
from tts_plugins.metering import Meter
from tts_plugins.prompts import attempt_text, attempt_turns
from tts_plugins.protocols import Run
from tts_plugins.types import Candidate, Problem, Reply, Scored


class CandidateLost(ModelError):
    """What was wrapped failed on one candidate; its error is the `__cause__`. It is not tried again."""

    charge = "nothing"  # what its calls took is on the account already

    @classmethod
    def by(cls, error: BaseException) -> Callable[[str], CandidateLost]:
        """Return what makes the failure of this error from a text: fatal where no other candidate can escape it."""

        fatal = is_fatal(error)  # what is returned does not refer to the error

        def made(text: str) -> CandidateLost:
            lost = cls(text)
            lost.fatal = fatal
            return lost

        return made


@dataclass(frozen=True, kw_only=True)
class Attempts:
    """Earlier answers that a candidate is to better, the latest last; with `merge` they were made side by side."""

    history: tuple[Scored, ...]
    merge: bool = False

    def turns(self) -> list[dict[str, Any]]:
        """As what follows the conversation in which they were made."""
        return attempt_turns(self.history, merge=self.merge)

    def text(self) -> str:
        """As one text, for a prompt's variable or a hint field."""
        return attempt_text(self.history, merge=self.merge)


class Searching(Protocol):
    """A search of an adapter: it makes the candidates."""

    def model_name(self) -> str | None:
        """The name of the language model that is asked; None where it cannot be seen, or there are several."""
        ...

    def generate(
        self, problem: Problem, seed: int | None, attempts: Attempts | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """One candidate; a better one than the attempts, where there are some."""
        ...

    def check_revision(self) -> None:
        """That what is wrapped can be shown attempts.

        Raises:
            ConfigurationError: it cannot; the text says what to change.
        """
        ...


SEARCH: ContextVar[Searching | None] = ContextVar("tts_plugins_search", default=None)
"""The search that models of adapters are asked by."""


def meter_here() -> Meter | None:
    """Return the meter of the candidate or verification that this runs in; None outside of any."""
    scope = SCOPE.get()
    meter: Meter | None = None if scope is None else scope.meter
    return meter


def search_here() -> Searching:
    """The search that this runs in."""
    found = SEARCH.get()
    assert found is not None
    return found


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What a rung of a `Ladder` asks instead of what is wrapped.

    Attributes:
        model: a name, or what the adapter wraps: a chain, a language model; None for what is wrapped.
        effort: the reasoning effort, as `Rung` has it.
    """

    model: Any = None
    effort: str | Mapping[str, Any] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a language model's call that ask for a name or an effort."""
        named = {"model": self.model} if isinstance(self.model, str) else {}
        return {**named, **effort_fields(self.effort)}


VARIANT: ContextVar[Variant | None] = ContextVar("tts_plugins_variant", default=None)
"""What the candidate that this runs in asks instead of what is wrapped."""


class MeteredModel:
    """The model as the engine sees it. One object for each wrapper, so that its limits span all its searches.

    Args:
        name: as it appears in traces and errors.
        concurrency: candidates in flight at most, over all searches.
        no_steps: what to do instead of a search over steps, which whole answers do not serve.
    """

    batch = 1

    def __init__(self, name: str, concurrency: int | None = None, *, no_steps: str = "use BestOfN or Revision") -> None:
        self.name, self.limits, self._no_steps = name, Limits(concurrency=concurrency), no_steps

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # optimisers copy programs; the server behind them is one

    @property
    def stands_for(self) -> str | None:
        """The name of the language model that is asked in the search that this runs in, where it can be seen."""
        search = SEARCH.get()
        return None if search is None else search.model_name()

    def variant(self, *, model: Any = None, effort: str | Mapping[str, Any] | None = None) -> MeteredModel:
        """Return a model whose candidates are asked of another model, or at another reasoning effort."""
        name = model if isinstance(model, str) else self.name if model is None else _name_of(model)
        return _Varied(name, Variant(model=model, effort=effort), self)

    async def bound(self, problem: Problem) -> None:
        """Metered: the framework's callbacks reserve."""
        return

    def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Coroutine[Any, Any, Reply]:
        """One candidate of the search that this runs in."""
        return search_here().generate(problem, seeds[0])

    async def revise_bound(self, problem: Problem, history: Sequence[Scored], *, merge: bool = False) -> None:
        """Metered too.

        Raises:
            ConfigurationError: what is wrapped cannot be shown attempts.
        """
        search_here().check_revision()

    def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Coroutine[Any, Any, Reply]:
        """One better candidate of the search that this runs in."""
        attempts = Attempts(history=tuple(history), merge=merge)
        return search_here().generate(problem, seeds[0], attempts)

    @property
    def separator(self) -> str:
        """Nothing stands between steps that are not there."""
        return ""

    async def prepare(self, run: Run) -> None:
        """It writes no steps."""
        self._refuse()

    async def step_bound(self, candidate: Candidate, ahead: int = 0) -> Bound | None:
        """It writes no steps."""
        self._refuse()

    async def expand(self, candidate: Candidate, seeds: Sequence[int | None], *, greedy: bool = False) -> Reply:
        """It writes no steps."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigurationError(
            f"{self.name} gives whole answers and writes no single steps, which a search over steps needs; "
            f"{self._no_steps}"
        )


class setting:
    """Where context variables have these values: pairs of a variable and its value."""

    __slots__ = ("_held",)

    def __init__(self, *pairs: tuple[ContextVar[Any], Any]) -> None:
        self._held: Sequence[Any] = pairs

    def __enter__(self) -> None:
        self._held = [variable.set(value) for variable, value in self._held]

    def __exit__(self, *_: object) -> None:
        for token in self._held:
            token.var.reset(token)


class _Varied(MeteredModel):
    """A metered model that says in its context what its candidates are to ask."""

    def __init__(self, name: str, variant: Variant, of: MeteredModel) -> None:
        super().__init__(name, of.limits.concurrency, no_steps=of._no_steps)
        self._variant = variant

    async def generate(self, problem: Problem, seeds: Sequence[int | None]) -> Reply:
        with setting((VARIANT, self._variant)):
            return await super().generate(problem, seeds)

    async def revise(
        self, problem: Problem, history: Sequence[Scored], seeds: Sequence[int | None], *, merge: bool = False
    ) -> Reply:
        with setting((VARIANT, self._variant)):
            return await super().revise(problem, history, seeds, merge=merge)


def _name_of(model: Any) -> str:
    """Return what an object of a framework is called in traces."""
    for name in ("model_name", "model", "name"):
        if isinstance(found := getattr(model, name, None), str):
            return found
    return type(model).__name__
