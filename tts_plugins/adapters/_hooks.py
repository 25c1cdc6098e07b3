"""What an adapter says of its framework, so that `BaseSearch` can search with it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, ClassVar, Generic, TypeVar

from tts_plugins.adapters._error_messages import described
from tts_plugins.adapters._metered import Attempts, MeteredModel
from tts_plugins.errors import AllCandidatesFailed
from tts_plugins.metering import Meter
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.types import Candidate, Generation, Problem, Result, Score

S = TypeVar("S")


class SearchHooks(Generic[S]):
    """What a subclass of `BaseSearch` says.

    `S` is what it keeps of one candidate: its seed, its input, its run in the framework's traces.

    Attributes:
        larger: the framework's classes of what unsure questions may go to, in place of what is wrapped.
        meter: the class of its meters, which may be one of the framework's callbacks, too.
    """

    larger: ClassVar[tuple[type, ...]] = ()
    meter: ClassVar[type[Meter]] = Meter
    model: MeteredModel

    # What a subclass has to say.

    @abstractmethod
    def begin(self, problem: Problem, seed: int | None, attempts: Attempts | None) -> S:
        """A new candidate; a better one than the attempts, where there are some."""

    @abstractmethod
    def call(self, sample: S) -> Any:
        """The framework's answer, by its synchronous methods."""

    @abstractmethod
    def acall(self, sample: S) -> Awaitable[Any]:
        """The framework's answer, by its asynchronous methods."""

    @abstractmethod
    def read(self, sample: S, output: Any) -> Generation:
        """The answer as a generation; what this raises costs the candidate.

        Raises:
            CandidateLost: it is not a valid output.
        """

    # What it may say.

    def where(self, sample: S) -> str:
        """What errors of a candidate begin with."""
        return self.model.name

    def described(self, error: BaseException) -> str:
        """An error in words."""
        return described(error)

    def without_async(self) -> bool:
        """Whether `arun` drives synchronous methods too, on threads."""
        return False

    def enter(self, sample: S | None, meter: Meter) -> Any:
        """Set what is set around `call`, `acall` and `read`, such as a framework's settings, or where its callbacks
        find the meter; without a `sample`, around a verification.

        It is no context manager, since each candidate in flight would have one, and its `__exit__`.

        Returns:
            What `leave` takes: tokens of context variables, say.
        """

    def leave(self, entered: Any) -> None:
        """Undo what `enter` did."""

    def model_name(self) -> str | None:
        """The name of the language model that is asked; None where it cannot be seen, or there are several.

        Policies and rules that were fitted to one model compare it.
        """
        return None

    def verifier(self) -> Verifier | SetVerifier | None:
        """What scores the candidates; put it into `metered_verifier`, so that its calls are counted."""
        return None

    def output_tokens(self) -> int | None:
        """Tokens at most of one candidate's output, as far as known: what a verifier has to read. None if it is not."""
        return None

    def check_revision(self) -> None:
        """Raise unless attempts can be shown to what is wrapped."""

    def chosen(self, result: Result) -> Result:
        """The result as it goes to the caller."""
        return result

    def instead(self, failed: AllCandidatesFailed) -> Result | None:
        """What goes to the caller where no candidate came through; None raises the error."""
        return None

    def failed(self, sample: S, error: BaseException) -> None:
        """A candidate failed, on its thread."""

    async def afailed(self, sample: S, error: BaseException) -> None:
        """A candidate failed, on the loop."""

    async def scored(self, candidate: Candidate, score: Score) -> None:
        """A candidate got its score."""

    async def unscored(self, candidate: Candidate, error: BaseException) -> None:
        """A candidate got no score."""

    def ended(self) -> None:
        """The search has ended, on the caller's thread."""

    async def aended(self) -> None:
        """The search has ended, on the caller's loop."""
