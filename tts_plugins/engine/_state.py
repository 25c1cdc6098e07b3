"""What one solve knows and has, below the methods that strategies call: its account, its time, its tasks, its trace."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, cast

from tts_plugins._calls.caller import Caller, words
from tts_plugins._calls.context import Halt, derive
from tts_plugins._concurrency.wait_graph import Holder
from tts_plugins._trace.recorder import Trace
from tts_plugins.answers import AnswerKey
from tts_plugins.confidence import check_threshold
from tts_plugins.engine._blocking import Held
from tts_plugins.engine._tasks import Inbox, Tasks
from tts_plugins.errors import BudgetExhausted, ConfigurationError, ModelError, TTSError
from tts_plugins.ledger import Ledger
from tts_plugins.protocols import Model, SetVerifier, Verifier
from tts_plugins.types import Scored, Stopped


class Driver(Protocol):
    """Who waits for the strategy's choice."""

    def end_soon(self) -> None:
        """Hear that the solve is halted, and is to end with what was seen."""
        ...


class SolveState:
    """The state of one solve, which `SolveRun`, `Sampling` and `Expansion` share.

    It refers to none of them: what goes round in circles is freed late, and a model's connections with it.

    Attributes:
        seen: all candidates so far, in order of arrival.
        stopped: why it ends, as far as that is known.
        refused: the first refusal of its budget.
        fatal: errors that no further candidate can escape, each with the model whose candidate met it.
        events: the trace's event of each candidate, by the candidate's id.
        children: how many children each candidate has been given.
        inboxes: where samplings that are under way wait for candidates.
        driver: hears once that it is halted.
        held: which verifiers held the loop, and for how long.
        choices: what the strategy said of its choices, by the candidate's id.
        below: the confidence below which the strategy itself would not answer; None where it does not say.
    """

    def __init__(
        self,
        *,
        model: Model,
        verifier: Verifier | SetVerifier | None,
        ledger: Ledger,
        trace: Trace,
        root: int,
        seed: int,
        deadline: float | None,
        attempts: int,
        answer: AnswerKey,
    ) -> None:
        self.model, self.verifier, self.seed, self.answer = model, verifier, seed, answer
        self.ledger, self.trace, self.root, self.deadline = ledger, trace, root, deadline
        self.caller = Caller(ledger=ledger, trace=trace, deadline=deadline, attempts=attempts)
        self.tasks = Tasks(self.caller, deadline)
        self.seen: list[Scored] = []
        self.stopped: Stopped = "complete"
        self.held: Held = {}
        self.choices: dict[str, dict[str, Any]] = {}
        self.below: float | None = None
        self.ended_by_rule = False  # as the strategy itself says, which no later sampling takes back
        self.refused: BudgetExhausted | None = None
        self.fatal: Sequence[tuple[Model, ModelError]] = ()
        self.events: dict[str, int] = {}
        self.children: dict[str, int] = {}
        self.inboxes: set[Inbox] = set()
        self.driver: Driver | None = None
        self._next = self._generated = 0

    def derive(self, *path: object) -> int:
        """A seed that depends on the run's seed and the path, and on nothing else."""
        return derive(self.seed, *path)

    def next_seed(self) -> int:
        """The next seed of a request that is made outside of any candidate."""
        self._generated += 1
        return self.derive("generate", self._generated - 1)

    def take_indices(self, n: int) -> range:
        """The next candidates' places."""
        self._next += n
        return range(self._next - n, self._next)

    def take_index(self) -> int:
        """The next candidate's place."""
        return self.take_indices(1)[0]

    def note(self, kind: str, **data: Any) -> None:
        """Record an event of the solve as a whole."""
        self.trace.note(kind, self.root, **data)

    def note_of_strategy(self, kind: str, **data: Any) -> None:
        """Record what a strategy says; see `Run.note` for what becomes part of the result."""
        if kind == "choice":
            self.choices.setdefault(data["candidate"], {}).update(data)
        elif kind == "threshold":
            check_threshold("Run.note", data["below"])
            self.below = data["below"]
        else:
            self.note(kind, **data)
            if kind == "stop":
                self.end_by_rule()

    def end_by_rule(self) -> None:
        """Say that a stop rule ended the search, or a part of it that runs beside others."""
        self.ended_by_rule = True
        if self.stopped == "complete":
            self.stopped = "stop_rule"

    def go_on(self) -> None:
        """Say that the search asks for more, after a stop rule may have ended an earlier sampling."""
        if self.stopped == "stop_rule" and not self.ended_by_rule:
            self.stopped = "complete"

    def halt(self, why: Halt) -> None:
        """End as soon as possible with what was seen: wake the code that waits for candidates."""
        if self.caller.halted is None and not self.caller.closed:
            self.caller.halted = self.stopped = why
            self.note(why)
            for inbox in self.inboxes:
                inbox.put(why)
            if self.driver is not None:
                self.driver.end_soon()

    @property
    def halted(self) -> Halt | None:
        """Why it ends now, if it does."""
        return self.caller.halted

    def raise_if_halted(self) -> None:
        """Start nothing more once the time is up, or the solve over."""
        self.caller.check()

    def exhausted(self, error: BudgetExhausted) -> bool:
        """Whether it is this solve's budget that has no room, and not that of a solve inside it; then it is noted."""
        ledger = error.ledger
        if isinstance(ledger, Ledger) and not ledger.pays_for(self.ledger):
            return False
        self.refused = self.refused or error
        if self.caller.halted is None and self.stopped not in ("budget", "error"):
            self.stopped = "budget"
            self.note("budget", error=f"BudgetExhausted: {error}")
        return True

    def share_end(self) -> None:
        """Tell the solves around this one if an account that pays for them too ended it early."""
        if self.stopped == "complete" and self.ledger.cut_inside:
            self.stopped = "budget"
        elif self.stopped == "budget" and self.refused is not None and isinstance(self.refused.ledger, Ledger):
            refusing = self.refused.ledger
            for around in (cast(Ledger, account) for account, _ in self.ledger.chain(None)):
                around.cut_inside = around.cut_inside or (around is not self.ledger and refusing.pays_for(around))

    def failed_for_all(self, error: TTSError) -> None:
        """Record that the search ends with what it has, since no further candidate can escape this error."""
        if self.stopped in ("complete", "stop_rule"):
            self.stopped = "error"
        self.note("search_ended", error=words(error))

    def raise_if_fatal(self, model: Model) -> None:
        """Raise what ended an earlier sampling of the same model: the next one would only fail again."""
        for failing, error in self.fatal:
            if failing is model:
                raise error

    async def close(self) -> None:
        """Cancel what is left in flight and wait until all of it is settled."""
        self.caller.closed = True
        try:
            await self.tasks.close()
        finally:
            self._settle()

    def holders(self) -> Iterator[Holder]:
        """Yield what its calls hold, and all that this is drawn from."""
        for hold in self.tasks.holds():
            yield from hold.enclosers()

    def give_up(self) -> None:
        """The same where nothing can be waited for, since the loop or a framework has let go of the solve."""
        self.caller.closed = True
        self.caller.abandon()  # first: what tasks hold is what their calls in flight pay from
        self.tasks.give_up()
        self._settle()

    def _settle(self) -> None:
        self.driver = None
        self.caller.abandon()
        self.tasks.release_left_behind()
        self.trace.abandon(self.root)
        self.refused = None  # its traceback has frames that refer to this
        self.fatal = ()  # as above


def is_fatal(error: BaseException) -> bool:
    """Return whether no other candidate can escape the error: a wrong key or setting, an account that is used up."""
    return isinstance(error, ConfigurationError) or (isinstance(error, ModelError) and error.fatal)
