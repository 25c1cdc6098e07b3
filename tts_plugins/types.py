"""The nouns: what is asked, what comes back, and what it cost."""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Literal, Protocol, Self, TypeVar, cast

from tts_plugins._internal.values import is_whole
from tts_plugins.errors import ConfigurationError

Message = Mapping[str, Any]
Stopped = Literal["complete", "stop_rule", "budget", "deadline", "cancelled", "error"]
OnAbstain = Literal["none", "raise", "escalate"]
T = TypeVar("T")


class _Empty(Mapping[str, Any]):
    """A mapping of nothing that cannot be changed; unlike a proxy of a dict, it can be pickled and copied."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return "{}"

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY: Mapping[str, Any] = _Empty()

_numbers = itertools.count(1)


def _new_id() -> str:
    # Unique within a process, short enough to read in a trace; next() on a count is atomic.
    return f"c{next(_numbers)}"


@dataclass(frozen=True, eq=False)
class Problem:
    """What is asked.

    Args:
        content: a text, a sequence of chat messages (`{"role", "content"}`), or whatever else the wrapped
            chain or function takes as its input.
        id: a name of your own, carried into traces and stores.
        metadata: anything that verifiers or functions of yours need besides the content.

    Raises:
        ConfigurationError: the content is empty, or is a sequence of things that are not messages.
    """

    content: Any
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    def __post_init__(self) -> None:
        content = self.content
        if content is None or (isinstance(content, str) and not content.strip()):
            raise ConfigurationError(f"problem: the content is empty ({content!r}); ask something")
        if isinstance(content, Sequence) and not isinstance(content, str | bytes):
            if not content:
                raise ConfigurationError("problem: the list of messages is empty; give at least one message")
            _check_messages(content)

    @classmethod
    def of(cls, problem: object) -> Problem:
        """The problem itself, or one made of a text, messages, or a chain's input."""
        return problem if isinstance(problem, Problem) else cls(problem)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The content as chat messages.

        Raises:
            ConfigurationError: the content is neither a text nor messages.
        """
        if isinstance(self.content, str):
            return [{"role": "user", "content": self.content}]
        if _are_messages(self.content):
            return [dict(cast(Message, m)) for m in self.content]
        raise ConfigurationError(
            f"problem: a chat model needs a text or messages, not {type(self.content).__name__}; "
            "render it first, or wrap your own function with CallableModel"
        )

    @property
    def text(self) -> str:
        """The content as one text: that of the last message of the user where it is a conversation."""
        if isinstance(self.content, str):
            return self.content
        if _are_messages(self.content):
            users = [m for m in self.content if m["role"] == "user"] or list(self.content)
            return _content_text(users[-1].get("content"))
        return str(self.content)


def _are_messages(content: object) -> bool:
    listed = isinstance(content, Sequence) and not isinstance(content, str | bytes)
    return listed and all(isinstance(m, Mapping) and "role" in m for m in cast(Sequence[object], content))


def _check_messages(content: Sequence[object]) -> None:
    """A list that begins like messages must be messages; any other list is a chain's input."""
    if not any(isinstance(m, Mapping) and ("role" in m or "content" in m) for m in content):
        return
    for i, message in enumerate(content):
        if not isinstance(message, Mapping) or "role" not in message:
            raise ConfigurationError(
                f"problem: message {i} is {message!r}; a message is a mapping with 'role' and 'content'"
            )


def _content_text(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):  # parts: [{"type": "text", "text": …}, {"type": "image_url", …}]
        return "\n".join(str(p.get("text", "")) for p in content if isinstance(p, Mapping) and p.get("type") == "text")
    return "" if content is None else str(content)


def well_formed(text: str) -> str:
    """Return the text with every lone surrogate replaced by U+FFFD: no file, database or request can carry one.

    Two halves that stand side by side, as a stream may cut them, become the character that they are.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


_SUMMED = ("calls", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "seconds", "overshoot")


def _made(kind: type[T], values: dict[str, Any]) -> T:
    """A frozen object of values that were checked before; `__init__` would set them one by one, and check again."""
    made = object.__new__(kind)
    object.__setattr__(made, "__dict__", values)
    return made


class Deferred:
    """A native object that is built when it is first looked at: most candidates' are not.

    Args:
        build: a function of a module, so that this can be pickled.
        data: its argument.
    """

    __slots__ = ("_build", "_data", "_made")

    def __init__(self, build: Callable[[Any], Any], data: Any) -> None:
        self._build, self._data = build, data

    @property
    def data(self) -> Any:
        """What it is built from."""
        return self._data

    def __call__(self) -> Any:
        """The object; the same one each time."""
        if not hasattr(self, "_made"):
            self._made = self._build(self._data)
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return Deferred, (self._build, self._data)


class _Output:
    """The field `output`, whose value may be `Deferred`."""

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        if owner is None:
            return self
        value = vars(owner)["output"]
        if type(value) is Deferred:
            value = vars(owner)["output"] = value()
        return value

    def __set__(self, owner: object, value: Any) -> None:
        vars(owner)["output"] = value


def held_output(thing: Generation | Candidate) -> Any:
    """The `output` as it is held, to be handed on: perhaps not built yet."""
    return vars(thing)["output"]


@dataclass(frozen=True)
class Step:
    """The unit that a process verifier scores: a part of a candidate's text, separator excluded."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was consumed.

    Attributes:
        calls: generations asked of a model; a request for 8 choices is 8 calls, a local function 0.
        requests: HTTP attempts, retries included.
        prompt_tokens, completion_tokens: as the server counted them, or a bound where it did not.
        cached_tokens: those of the prompt tokens that the server says it did not have to compute again.
        usd: US dollars; None where a price is not known.
        seconds: summed time of the calls in a part; wall time in a result's total.
        exact: False where some figure is an upper bound instead of a count.
        overshoot: tokens that servers charged above what had been reserved for the call.
        by_role: the same for "model" and "verifier" separately.

    Raises:
        ConfigurationError: a figure is negative, not finite, or not whole where it counts.
    """

    calls: int = 0
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    exact: bool = True
    overshoot: int = 0
    # No part of the hash, since a mapping has none: equal ones have equal figures all the same.
    by_role: Mapping[str, Usage] = field(default_factory=lambda: EMPTY, repr=False, hash=False)

    def __post_init__(self) -> None:
        # A negative or nameless figure would give budget away. Most are sums of what was checked before: be quick then.
        counts = (
            self.calls, self.requests, self.prompt_tokens, self.completion_tokens, self.cached_tokens, self.overshoot,
        )  # fmt: skip
        if not (set(map(type, counts)) == {int} and min(counts) >= 0):
            self._check_counts()
        for name, amount in (("usd", self.usd), ("seconds", self.seconds)):
            if amount is not None and not 0 <= amount < math.inf:
                raise ConfigurationError(f"Usage: {name}={amount!r} must be a finite number of at least 0")

    def _check_counts(self) -> None:
        for name in ("calls", "requests", "prompt_tokens", "completion_tokens", "cached_tokens", "overshoot"):
            value = getattr(self, name)
            if not is_whole(value, 0):
                raise ConfigurationError(f"Usage: {name}={value!r} must be a whole number of at least 0")

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        """The sum; an unknown price on one side makes the sum's price unknown."""
        roles = dict(self.by_role)
        for role, usage in other.by_role.items():
            roles[role] = roles[role] + usage if role in roles else usage
        sums = {
            "calls": self.calls + other.calls,
            "requests": self.requests + other.requests,
            "prompt_tokens": self.prompt_tokens + other.prompt_tokens,
            "completion_tokens": self.completion_tokens + other.completion_tokens,
            "cached_tokens": self.cached_tokens + other.cached_tokens,
            "usd": None if self.usd is None or other.usd is None else self.usd + other.usd,
            "seconds": self.seconds + other.seconds,
            "exact": self.exact and other.exact,
            "overshoot": self.overshoot + other.overshoot,
            "by_role": roles,
        }
        return _made(Usage, sums)

    @classmethod
    def sum(cls, usages: Sequence[Usage]) -> Usage:
        """The sum of many, in one go."""
        parts: dict[str, list[Usage]] = {}
        for each in usages:
            for role, part in each.by_role.items():
                parts.setdefault(role, []).append(part)
        prices = [each.usd for each in usages]
        sums = {name: sum([getattr(each, name) for each in usages]) for name in _SUMMED}
        sums["usd"] = None if None in prices else sum(price for price in prices if price is not None)
        sums["exact"] = all([each.exact for each in usages])
        sums["by_role"] = {role: each[0] if len(each) == 1 else cls.sum(each) for role, each in parts.items()}
        return _made(Usage, sums)

    def of_role(self, role: str) -> Usage:
        """Return the same usage as that of a role."""
        return _made(Usage, {**vars(self), "by_role": {role: self}})

    def timed(self, seconds: float, *, overshoot: int | None = None) -> Usage:
        """The same, with the time that it took, and with another overshoot where one is given."""
        over = self.overshoot if overshoot is None else overshoot
        return _made(Usage, {**vars(self), "seconds": seconds, "overshoot": over})

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form; `tokens` is included, `by_role` where there is any."""
        out: dict[str, Any] = {
            "calls": self.calls,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens": self.tokens,
            "cached_tokens": self.cached_tokens,
            "usd": self.usd,
            "seconds": round(self.seconds, 6),
            "exact": self.exact,
            "overshoot": self.overshoot,
        }
        if self.by_role:
            out["by_role"] = {role: usage.to_dict() for role, usage in self.by_role.items()}
        return out


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One choice that a model returned.

    Attributes:
        text: what it said, without lone surrogates; empty where it only called tools.
        output: the native object (a message, a prediction, a tool call); the text where there is none.
        finish_reason: as the server gave it; "length" means that it was cut.
        tokens: completion tokens of this choice, where they are known singly.
        logprobs: log-probability of each token, where they were asked for.
        top_logprobs: for each token, itself first and then its alternatives, as (token, log-probability).
        reasoning: the text of its thinking, where the server shows it.
    """

    text: str
    output: Any = field(default=None, repr=False)  # to show it would build it
    finish_reason: str = "stop"
    tokens: int | None = None
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[tuple[tuple[str, float], ...], ...] | None = None
    reasoning: str | None = None

    def __post_init__(self) -> None:
        # Cleaned here, where all replies come in, so that no store, trace or next prompt trips over it.
        for name in ("text", "reasoning"):
            said = getattr(self, name)
            if isinstance(said, str) and not said.isascii() and (clean := well_formed(said)) is not said:
                object.__setattr__(self, name, clean)

    def replace(self, **changes: Any) -> Self:
        """A copy with changes."""
        if not changes.keys() <= vars(self).keys():
            return replace(self, **changes)  # which says what field there is not
        return _made(type(self), {**vars(self), **changes})


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one request to a model brought: its choices, and what they cost together (None: it cannot say)."""

    generations: tuple[Generation, ...]
    usage: Usage | None


@dataclass(frozen=True, eq=False)
class Candidate:
    """A partial or finished solution. Compared by identity.

    Attributes:
        problem: what it answers.
        text: all that was written so far.
        output: the native object of its model (a message, a dict, a prediction), else the text.
        answer: the answer as it was written; None where none could be read.
        answer_key: the form in which equal answers compare equal; None where `answer` is compared as it stands.
        steps: its steps, where it was searched or cut in steps.
        finished: nothing is to be added.
        truncated: it was cut by a length limit; such an answer is unfinished rather than wrong.
        tokens: its completion tokens, where they are known singly.
        logprobs: log-probability of each token, where they were asked for.
        index: its place among the candidates of its run, from 0; it fixes the seed.
        seed: the seed that its request carried.
        parent: the id of the candidate that it continues or revises.
        id: unique in this process.
    """

    problem: Problem
    text: str = ""
    output: Any = field(default=None, repr=False)  # to show it would build it
    answer: str | None = None
    answer_key: str | None = None
    steps: tuple[Step, ...] = ()
    finished: bool = False
    truncated: bool = False
    finish_reason: str = ""
    tokens: int | None = None
    logprobs: tuple[float, ...] | None = None
    reasoning: str | None = None
    index: int = 0
    seed: int | None = None
    parent: str | None = None
    id: str = field(default_factory=_new_id)

    @classmethod
    def made(cls, problem: Problem, **values: Any) -> Candidate:
        """A new one, of fields by name; as the class itself makes it, in a third of the time."""
        return _made(Candidate, {"problem": problem, **_NEW, "id": _new_id(), **values})

    @property
    def vote(self) -> str | None:
        """What it votes for: its key, else its answer as it stands; None where it has no answer."""
        return self.answer if self.answer_key is None else self.answer_key

    def replace(self, **changes: Any) -> Self:
        """A copy with changes; it keeps its id unless that is changed too."""
        fields = _FIELDS.get(type(self))
        if fields is None or not fields >= changes.keys():
            return replace(self, **changes)  # for a subclass's own checks, or to say what field there is not
        return _made(type(self), {**vars(self), **changes})


@dataclass(frozen=True, eq=False)
class Scored(Candidate):
    """A candidate with what its verifier said.

    Attributes:
        score: in [0, 1]; None where no verifier was asked.
        step_scores: a score for each step, where the verifier gives them.
        feedback: the verifier's reason in words; revision feeds on it.
        details: whatever else the verifier reports (criteria, critique).
    """

    score: float | None = None
    step_scores: tuple[float, ...] = ()
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)

    @classmethod
    def of(cls, candidate: Candidate, **scoring: Any) -> Scored:
        """The candidate with its scoring; the same id, since it is the same solution."""
        values = vars(candidate)
        if type(candidate) is not Candidate:  # it may have more than a candidate has
            values = {name: values[name] for name in _CANDIDATE_FIELDS}
        if cls is not Scored or not _FIELDS[Scored] >= scoring.keys():
            return cls(**{**values, **scoring})  # for a subclass's own checks, or to say what field there is not
        return _made(cls, {**values, **_UNSCORED, **scoring})


Generation.output = Candidate.output = _Output()
_NEW = {f.name: f.default for f in fields(Candidate) if f.default is not MISSING}
_CANDIDATE_FIELDS = tuple(Candidate.__dataclass_fields__)
_FIELDS: Mapping[type[Candidate], frozenset[str]] = {
    kind: frozenset(kind.__dataclass_fields__) for kind in (Candidate, Scored)
}
_UNSCORED = {"score": None, "step_scores": (), "feedback": "", "details": EMPTY}


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a verifier says of one candidate: `value` in [0, 1], step scores, a reason in words."""

    value: float
    steps: tuple[float, ...] = ()
    feedback: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


class TraceView(Protocol):
    """What can be done with a trace."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Mapping[str, Any]]: ...
    def to_dict(self) -> dict[str, Any]:
        """JSON-serialisable: the run's settings and every event."""
        ...

    def tree(self) -> str:
        """Rendered for a terminal."""
        ...

    def html(self) -> str:
        """One self-contained HTML page."""
        ...

    def _repr_html_(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Abstained:
    """Why a question was not answered: the choice was not sure enough.

    Attributes:
        below: the least confidence with which a question is answered.
        confidence, agreement: those of the choice that is withheld, as `Result` has them.
        reason: all of it in words, ties included.
        person: whether a person is to be asked now, as the settings say.
    """

    below: float
    confidence: float | None
    agreement: float | None
    reason: str
    person: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """The outcome of one solve.

    Attributes:
        best: the candidate that was chosen, also where its answer is withheld.
        candidates: all that were seen, by index.
        usage: all that was spent on this solve, verification included.
        stopped: why it ended: "complete", "stop_rule", "budget", "deadline", "cancelled", or "error": a call failed
            in a way that no further candidate could escape (a refused key, a used-up account); `warnings` says how.
        trace: every call with its parent, candidate, score, usage and times.
        seed: the run's seed: the same seed sends the same requests.
        warnings: what cut the search short besides what `stopped` says: a level of which every candidate failed,
            `max_steps`; and what makes the choice doubtful: a tie for the first place, or votes without a readable
            answer. Empty where all went as asked.
        confidence: how well the chosen answer is supported, from 0 to 1: by majority, the share of votes; by weighted
            vote, the answer's summed scores divided by the number of candidates; by best score, that score. None where
            nothing can be said: a single sample without a verifier, no readable answer, a partial solution.
        agreement: the share of candidates that gave the chosen answer; None where there is no answer, or nobody else.
        abstained: why the question is not answered, where `abstain_below` forbade it; `output` and `answer` are None
            then, and `text` is empty.
        escalated: whether the answer is that of the escalation: a larger model, or another strategy.
    """

    problem: Problem
    best: Scored
    candidates: tuple[Scored, ...]
    usage: Usage
    stopped: Stopped
    trace: TraceView
    seed: int
    warnings: tuple[str, ...] = ()
    confidence: float | None = None
    agreement: float | None = None
    abstained: Abstained | None = None
    escalated: bool = False

    @property
    def output(self) -> Any:
        """The native object of the chosen candidate; its text where there is none. None if it abstained."""
        if self.abstained is not None:
            return None
        return self.best.text if self.best.output is None else self.best.output

    @property
    def text(self) -> str:
        """The text of the chosen candidate; empty if it abstained."""
        return self.best.text if self.abstained is None else ""

    @property
    def answer(self) -> str | None:
        """The answer of the chosen candidate, as it was written; None if it abstained."""
        return self.best.answer if self.abstained is None else None

    @property
    def answer_key(self) -> str | None:
        """The form of the chosen answer in which equal answers compare equal; None if it abstained."""
        return self.best.vote if self.abstained is None else None

    @property
    def score(self) -> float | None:
        """The score of the chosen candidate, where a verifier gave one."""
        return self.best.score

    def to_dict(self) -> dict[str, Any]:
        """What came of it, as JSON: the choice, the usage, and each candidate; the trace has a form of its own."""
        names = ("id", "index", "text", "answer", "score", "feedback", "truncated")
        return {
            "output": _native(self.output, self.text),
            "text": self.text,
            "answer": self.answer,
            "score": self.score,
            "confidence": self.confidence,
            "agreement": self.agreement,
            "abstained": None if self.abstained is None else self.abstained.to_dict(),
            "escalated": self.escalated,
            "stopped": self.stopped,
            "warnings": list(self.warnings),
            "seed": self.seed,
            "chosen": self.best.id,
            "usage": self.usage.to_dict(),
            "candidates": [{name: getattr(c, name) for name in names} for c in self.candidates],
        }

    def __repr__(self) -> str:
        said = {
            "answer": _short(self.answer), "text": _short(self.text), "score": self.score,
            "confidence": self.confidence, "abstained": self.abstained and _short(self.abstained.reason, 200),
        }  # fmt: skip
        parts = [f"{name}={value!r}" for name, value in said.items() if value is not None]
        spent = f"{len(self.candidates)} candidates, {self.usage.tokens} tokens, stopped={self.stopped!r}"
        return f"Result({', '.join([*parts, spent])})"

    def _repr_html_(self) -> str:
        return self.trace._repr_html_()


def _short(text: str | None, size: int = 60) -> str | None:
    flat = None if text is None else " ".join(text[: 100 * size].split())
    return flat if flat is None or len(flat) <= size else f"{flat[: size - 1]}…"


def _native(output: Any, text: str) -> Any:
    """A native output as JSON has it; a message of a chat model as its text, unless it calls tools."""
    dump = getattr(output, "model_dump", None)
    try:
        if callable(dump):
            output = dump(mode="json", exclude_none=True) if getattr(output, "tool_calls", None) else text
        plain = isinstance(output, dict | list | tuple | set | frozenset | str | numbers.Real) or output is None
        return json_form(output) if plain else text
    except Exception:  # noqa: BLE001 - it may hold itself, or what its own dump refuses
        return text


_JSON = frozenset({int, bool, type(None)})  # most of what is recorded: looked up before anything is called


def json_form(value: Any) -> Any:
    """The value as JSON has it: verifiers, servers and strategies bring what they like."""
    if type(value) in _JSON:
        return value
    if type(value) is str:
        return well_formed(value)
    if type(value) is float:
        return value if math.isfinite(value) else repr(value)
    if type(value) is Usage:
        return value.to_dict()
    # The usual types first: whether something is a Mapping is slow to find out.
    if type(value) in (list, tuple, range):
        return [item if type(item) in _JSON else json_form(item) for item in value]
    if type(value) is dict or isinstance(value, Mapping):
        return {well_formed(str(key)): item if type(item) in _JSON else json_form(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [json_form(item) for item in value]
    if isinstance(value, str):
        return well_formed(str(value))
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return json_form(float(value))
    return repr(value)
