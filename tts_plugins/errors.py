"""Every error that this package raises on purpose.

::

    TTSError
    ├── ConfigurationError (ValueError)   a wrong setting: names the field, the value and the fix
    │   ├── UnknownSettingError (TypeError)  a setting of an unknown name: says which is meant
    │   ├── MissingExtraError             an optional dependency is absent: names the extra
    │   ├── UnknownPriceError             a money limit over a model whose price is unknown
    │   ├── UnboundedCallError            a token or money limit over a call without max_tokens
    │   ├── RequestNotSent (TypeError)    a client refuses a request's arguments, and has sent nothing
    │   └── SandboxUnavailable            no sandbox works here, and programs would run without one
    ├── DataError (ValueError)            a wrong file or record: names the file and the line
    ├── WeightsError                      the embedded model's weights cannot be had or trusted
    ├── BudgetExhausted (RuntimeError)    a reservation does not fit, and nothing will make room
    ├── DeadlineExceeded (TimeoutError)   the time is up and there is no candidate at all
    ├── SolveCancelled                    its own cancel() ended it, and there is no candidate at all
    ├── AllCandidatesFailed               every candidate failed: names the first cause
    ├── JobFailed                         its worker died each time, on a cluster: names the job
    ├── LowConfidence                     the choice is not sure enough, with on_abstain="raise"
    └── CandidateError                    one candidate failed, the others go on
        ├── ModelError                    a generation failed
        │   ├── AuthenticationFailed      401, 403
        │   ├── ModelNotFound             404
        │   ├── RequestRefused            any other 4xx
        │   ├── RateLimited               429
        │   │   └── QuotaExhausted        402, or a 429 for an account that is used up
        │   ├── ServerFailed              5xx
        │   ├── ConnectionFailed          refused, reset, name not found
        │   ├── CallTimedOut              no complete answer in time
        │   └── MalformedResponse         an answer that is not what the protocol says
        └── VerifierError                 a score could not be had
            └── InvalidScore              not a number, out of range, of the wrong length
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

Charge = Literal["reserve", "call", "nothing"]


class TTSError(Exception):
    """Base of all errors of this package.

    Each can be pickled. Its message, its plain attributes and those causes that are errors of this package travel with
    it. Objects with locks and keys stay behind, and so do other packages' errors, which may hold a request's headers.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: _portable(value) for name, value in vars(self).items() if _is_portable(value)}
        if isinstance(self.__cause__, TTSError):
            state["__cause__"] = self.__cause__
        return _without_init, (type(self), self.args), state


def _without_init(kind: type[TTSError], args: tuple[Any, ...]) -> TTSError:
    # A subclass may take other arguments than it gives to its base; the attributes come with the state.
    return kind.__new__(kind, *args)


def _is_portable(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_portable, value))
    return value is None or isinstance(value, str | bytes | int | float | BaseException)


def _portable(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_portable, value))
    if isinstance(value, BaseException) and not isinstance(value, TTSError):
        return TTSError(f"{type(value).__name__}, which stays in the process that raised it")
    return value


class ConfigurationError(TTSError, ValueError):
    """A setting is wrong. The message names the field, its value and what to write instead."""


class UnknownSettingError(ConfigurationError, TypeError):
    """An argument is not a setting, or one is missing. The message names the one that may be meant, or the call."""


class MissingExtraError(ConfigurationError, ImportError):
    """An optional dependency is not installed. The message names the extra to install."""


class UnknownPriceError(ConfigurationError):
    """A `usd` limit stands over a model whose price is not known; it is never taken as free."""


class UnboundedCallError(ConfigurationError):
    """A token or money limit stands over a call whose length has no bound."""


class RequestNotSent(ConfigurationError, TypeError):
    """The client refuses the arguments of a request: a name it does not know, or a value that has no form in JSON.

    Nothing was sent and nothing is charged. The client's own error is the `__cause__`.

    Attributes:
        model: the one whose request it is.
    """

    model: object = None

    def __init__(self, message: str, *, model: object = None) -> None:
        super().__init__(message)
        self.model = model


class SandboxUnavailable(ConfigurationError):
    """No sandbox works on this machine, and a program would run without one. The message says what each kind lacks."""


class DataError(TTSError, ValueError):
    """A file or record is malformed. The message names the file, the line and the field."""


class WeightsError(TTSError):
    """The weights of the embedded model could not be fetched, or are not what they should be."""


class BudgetExhausted(TTSError, RuntimeError):
    """A reservation does not fit into what is left, and no call in flight will give any back.

    It is a `RuntimeError` because retrying cannot help: LangGraph's default retry policy leaves those alone.

    Attributes:
        ledger: the account that has no room, where it is known: a solve inside another one may have its own.
    """

    ledger: object = None


class DeadlineExceeded(TTSError, TimeoutError):
    """The time limit passed before there was any candidate to return."""


class JobFailed(TTSError):
    """One job of many failed where it ran, each time that it was tried: its worker died."""


class LowConfidence(TTSError):
    """The choice was less sure than `abstain_below` asks for, and `on_abstain` is "raise".

    Attributes:
        result: the whole result, with the withheld candidate as its `best`; None once the error was pickled.
        confidence: that of the choice; None where nothing can be said.
        below: the least confidence with which a question is answered.
    """

    result: Any = None

    def __init__(self, message: str, *, confidence: float | None = None, below: float | None = None) -> None:
        super().__init__(message)
        self.confidence, self.below = confidence, below

    @classmethod
    def of(cls, result: Any) -> Self:
        """Return the error of a result that has abstained."""
        abstained = result.abstained
        error = cls(f"no answer: {abstained.reason}", confidence=abstained.confidence, below=abstained.below)
        error.result = result
        return error


class CandidateError(TTSError):
    """One candidate failed; the solve goes on with the others.

    Attributes:
        written: what the model wrote for it, where an adapter knows that; a revision is shown it.
    """

    written: str = ""


class ModelError(CandidateError):
    """A generation failed.

    Attributes:
        retryable: whether the same request may succeed later.
        retry_after: seconds that the server asked to wait, where it did.
        fatal: no other candidate can succeed either (a wrong key, an unknown model).
        charge: what the failed attempt is charged: its whole `reserve` (it may have been worked on),
            one `call` without tokens (it was refused), or `nothing` (it never left).
        requests: HTTP attempts that it took, those included that were refused for a parameter which was then left out.
    """

    retryable = False
    fatal = False
    charge: Charge = "reserve"
    requests = 1

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AuthenticationFailed(ModelError):
    """The server does not accept the key (401, 403)."""

    fatal = True
    charge: Charge = "call"


class ModelNotFound(ModelError):
    """The server does not know the model or the path (404)."""

    fatal = True
    charge: Charge = "call"


class RequestRefused(ModelError):
    """The server refuses this request as it stands (400, 409, 413, 422, …)."""

    charge: Charge = "call"


class RateLimited(ModelError):
    """The server asks to slow down (429)."""

    retryable = True
    charge: Charge = "call"


class QuotaExhausted(RateLimited):
    """The account behind the key is used up (402, `insufficient_quota`). No wait worth having changes that."""

    retryable = False
    fatal = True


class ServerFailed(ModelError):
    """The server broke (5xx)."""

    retryable = True


class ConnectionFailed(ModelError):
    """The server was not reached, which costs a call without tokens; or the connection broke: it costs its reserve."""

    retryable = True

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        self.charge: Charge = "call" if refused else "reserve"


class CallTimedOut(ModelError):
    """No complete answer came within the time for one call."""

    retryable = True


class MalformedResponse(ModelError):
    """The answer is not what the protocol says: broken JSON, HTML, no choices, no text."""

    retryable = True


class VerifierError(CandidateError):
    """A verifier failed on a candidate. Its score is unknown: never zero, never a middle value."""


class InvalidScore(VerifierError):
    """A verifier returned something that is not a score in [0, 1], or the wrong number of step scores."""


class SolveCancelled(TTSError):
    """`SolveEvents.cancel()` was called before there was any candidate to return."""


class AllCandidatesFailed(TTSError):
    """No candidate is left.

    Attributes:
        errors: each one's error; the first is the `__cause__`.
        unscored: how many of them were generated, and failed because they could not be scored.
        attempts: what is known of each of them, as a `Scored` whose feedback is the failure: a revision builds on it.
    """

    attempts: Sequence[Any] = ()

    def __init__(
        self, message: str, errors: Sequence[BaseException] = (), *, unscored: int = 0, attempts: Sequence[Any] = ()
    ) -> None:
        super().__init__(message)
        self.errors, self.unscored, self.attempts = tuple(errors), unscored, tuple(attempts)

    @property
    def may_succeed_later(self) -> bool:
        """Whether all failed only because of the server's state, such as one that is down."""
        return bool(self.errors) and all(isinstance(e, ModelError) and e.retryable for e in self.errors)


OVER = (BudgetExhausted, DeadlineExceeded, SolveCancelled, AllCandidatesFailed)
"""What ends a search that has found something: it then chooses among what it has."""
