"""Programs that keep state in `self`: candidates run copies, and what one writes no other one reads."""

from __future__ import annotations

import abc
import array
import asyncio
import collections
import dataclasses
import functools
import random
import threading
import types
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import pydantic
import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import dspy
from tts_plugins_dspy import Refine, Scaled
from tts_plugins_dspy._isolation import isolated, keeps_state

from tests.dspy_models import VERSION, aclose, program, score
from tts_plugins.testing.loopback import LoopbackServer

T = TypeVar("T")

meeting = threading.Barrier(3, timeout=60)
"""Where candidates meet: none reads what it kept before all have kept theirs."""
meetings_on_loop: list[asyncio.Barrier] = []


class Drafting(dspy.Module):  # type: ignore[misc]
    """Writes a draft, keeps it, works on, and reads it again."""

    draft: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.write, self.improve = program(), program()

    def forward(self, question: str) -> Any:
        made = self.write(question=question).answer
        self.keep(made)
        meeting.wait()
        self.improve(question=f"{question} {made}")
        return dspy.Prediction(answer=self.kept(), wrote=made)

    def keep(self, made: Any) -> None:
        self.draft = made

    def kept(self) -> Any:
        return self.draft


class Asynchronous(Drafting):
    async def aforward(self, question: str) -> Any:
        made = (await self.write.acall(question=question)).answer
        self.keep(made)
        async with asyncio.timeout(60):
            await meetings_on_loop[-1].wait()
        await self.improve.acall(question=f"{question} {made}")
        return dspy.Prediction(answer=self.kept(), wrote=made)


@dataclasses.dataclass
class Notes:
    text: Any = None

    def remember(self, made: Any) -> None:
        self.text = made


@dataclasses.dataclass(slots=True)
class Slots(Notes):
    __text: Any = None  # a private name

    def remember(self, made: Any) -> None:
        self.text = self.__text = made


class Abstract(abc.ABC):
    __slots__ = ("text",)

    def __init__(self) -> None:
        self.text: Any = None

    @abc.abstractmethod
    def remember(self, made: Any) -> None: ...


class Concrete(Abstract):
    def remember(self, made: Any) -> None:
        self.text = made


class Typed(Generic[T]):
    def __init__(self) -> None:
        self.text: Any = None
        self.chance = random.Random(1)

    def remember(self, made: T) -> None:
        self.text = made


class Private(pydantic.BaseModel):
    _made: list[Any] = pydantic.PrivateAttr(default_factory=list)


class Annotated(list[Any]):
    """A list with notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, Any] = {}


class Memory:
    """An object of the user's, as careful as can be."""

    def __init__(self) -> None:
        self._lock, self._made = threading.Lock(), list[Any]()

    def remember(self, made: Any) -> None:
        with self._lock:
            self._made.append(made)

    def latest(self) -> Any:
        return self._made[-1]


class Remembering(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.latest: Any = None

    def remember(self, made: Any) -> None:
        self.latest = made


class Holding(Drafting):
    """Keeps its draft in something that it holds."""

    def __init__(self, held: Callable[[], Any], put: Callable[[Any, Any], object], get: Callable[[Any], Any]) -> None:
        super().__init__()
        self.held, self.put, self.get = held(), put, get

    def keep(self, made: Any) -> None:
        self.put(self.held, made)

    def kept(self) -> Any:
        return self.get(self.held)


class Tooled(Drafting):
    """Its tools are methods of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[Any] = []
        self.tool, self.part = dspy.Tool(self.note, name="note"), functools.partial(self.note)

    def note(self, made: int) -> str:
        self.noted.append(made)
        return "noted"

    def keep(self, made: Any) -> None:
        self.tool(made=made)
        self.part(made)

    def kept(self) -> Any:
        assert len(self.noted) == 2
        return self.noted[-1]


class Bound(Drafting):
    """Holds methods of what it keeps its draft in."""

    def __init__(self) -> None:
        super().__init__()
        drafts, notes = list[Any](), Notes()
        self.add, self.latest = drafts.append, functools.partial(drafts.__getitem__, -1)
        self.remember, self.notes = notes.remember, (notes,)

    def keep(self, made: Any) -> None:
        self.add(made)
        self.remember(made)

    def kept(self) -> Any:
        assert self.notes[0].text == self.latest()
        return self.latest()


class Lazy(Drafting):
    @functools.cached_property
    def first(self) -> Any:
        return self.write(question="first?").answer

    def forward(self, question: str) -> Any:
        made = self.first
        meeting.wait()
        self.improve(question=f"{question} {made}")
        return dspy.Prediction(answer=self.first, wrote=made)


class Elsewhere(Drafting):
    """Another function keeps it."""

    def keep(self, made: Any) -> None:
        _keep(self, made)


def _keep(module: Any, made: Any) -> None:
    module.draft = made


class Demonstrating(Drafting):
    """Keeps it in a predictor of DSPy's."""

    def keep(self, made: Any) -> None:
        self.improve.demos.append({"question": "?", "answer": made})

    def kept(self) -> Any:
        return self.improve.demos[-1]["answer"]


def _history() -> Any:
    return dspy.History(messages=[])


KINDS: dict[str, Callable[[], Any]] = {
    "attribute": Drafting,
    "another function": Elsewhere,
    "cached property": Lazy,
    "demos": Demonstrating,
    "tools": Tooled,
    "list": lambda: Holding(list, lambda held, made: held.append(made), lambda held: held[-1]),
    "dict": lambda: Holding(dict, lambda held, made: held.update(a=made), lambda held: held["a"]),
    "deep": lambda: Holding(lambda: {"a": [[]]}, lambda held, made: held["a"][0].append(made), lambda h: h["a"][0][-1]),
    "deque": lambda: Holding(collections.deque, lambda held, made: held.append(made), lambda held: held[-1]),
    "defaultdict": lambda: Holding(
        lambda: collections.defaultdict(list), lambda held, made: held["a"].append(made), lambda held: held["a"][-1]
    ),
    "counter": lambda: Holding(collections.Counter, lambda held, made: held.update(a=made), lambda held: held["a"]),
    "dataclass": lambda: Holding(Notes, lambda held, made: held.remember(made), lambda held: held.text),
    **{
        kind.__name__: functools.partial(Holding, kind, lambda held, made: held.remember(made), lambda held: held.text)
        for kind in (Slots, Concrete, Typed)
    },
    "bound": Bound,
    "namespace": lambda: Holding(
        lambda: types.SimpleNamespace(a=None), lambda held, made: setattr(held, "a", made), lambda held: held.a
    ),
    "user dict": lambda: Holding(
        collections.UserDict, lambda held, made: held.__setitem__("a", made), lambda held: held["a"]
    ),
    "private": lambda: Holding(Private, lambda held, made: held._made.append(made), lambda held: held._made[-1]),
    "subclass": lambda: Holding(Annotated, lambda held, made: held.notes.update(a=made), lambda held: held.notes["a"]),
    "numbers": lambda: Holding(lambda: array.array("i"), lambda held, made: held.append(made), lambda held: held[-1]),
    "numpy": lambda: Holding(
        lambda: np.zeros(1), lambda held, made: held.__setitem__(0, made), lambda held: int(held[0])
    ),
    "object": lambda: Holding(Memory, lambda held, made: held.remember(made), lambda held: held.latest()),
    "module": lambda: Holding(Remembering, lambda held, made: held.remember(made), lambda held: held.latest),
    "history": lambda: Holding(
        _history, lambda held, made: held.messages.append({"a": made}), lambda held: held.messages[-1]["a"]
    ),
    "example": lambda: Holding(
        lambda: dspy.Example(a=1), lambda held, made: setattr(held, "a", made), lambda held: held.a
    ),
    "in a list of modules": lambda: Holding(
        lambda: [Remembering()], lambda held, made: held[0].remember(made), lambda held: held[0].latest
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copy", ["auto", True])
def test_what_a_program_keeps_stays_its_candidates_own(
    dspy_server: LoopbackServer, dspy_lm: Any, kind: str, copy: Any
) -> None:
    module = KINDS[kind]()
    before = _shown(module)
    scaled = Scaled(module, n=3, verifier=score, copy=copy)
    with dspy.context(trace=[]):
        result = scaled.solve(question="q")
        predictors = [step[0] for step in dspy.settings.trace]
    assert sorted(c.output.wrote for c in result.candidates) == [0, 1, 2], "each has a draft of its own"
    assert all(c.output.answer == c.output.wrote for c in result.candidates)
    assert _shown(module) == before, "nor does the next caller find it"
    assert predictors == [module.write, module.improve] and len(module.write.history) == 3


async def test_asynchronous_candidates_have_copies_too(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    meetings_on_loop.append(asyncio.Barrier(3))
    module = Asynchronous()
    result = await Scaled(module, n=3, verifier=score).asolve(question="q")
    assert sorted(c.output.wrote for c in result.candidates) == [0, 1, 2] and module.draft is None
    assert all(c.output.answer == c.output.wrote for c in result.candidates)
    await aclose(dspy_lm)


def _shown(module: Any) -> str:
    return str({name: _plain(value) for name, value in vars(module).items() if name != "history"})


def _plain(value: Any) -> Any:
    if isinstance(value, dspy.Predict):
        return value.demos
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Notes | Memory | Remembering):
        return [getattr(value, name, None) for name in ("text", "_made", "latest")]
    return str(value)


def test_without_copies_all_is_shared(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    module = Drafting()
    result = Scaled(module, n=3, verifier=score, copy=False).solve(question="q")
    assert len({c.output.answer for c in result.candidates}) == 1 and module.draft is not None


def test_attempts_of_a_chain_have_copies_too(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    module = Counting()
    best = Refine(module, N=3, reward_fn=lambda args, pred: float(pred.answer)).solve(question="q")
    assert [c.output.calls for c in best.candidates] == [1, 1, 1] and module.calls == 0


class Counting(dspy.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.ask, self.calls = program(), 0

    def forward(self, question: str) -> Any:
        self.calls += 1
        return dspy.Prediction(calls=self.calls, **self.ask(question=question))


class Plain(dspy.Module):  # type: ignore[misc]
    """Keeps nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.limit = program(), 3

    def forward(self, question: str) -> Any:
        asked = [self.ask(question=f"{question} {i}") for i in range(self.limit)]
        return max(asked, key=lambda prediction: prediction.answer + self.limit)


def test_a_program_without_state_is_not_copied() -> None:
    for module in (program(), dspy.ReAct("question -> answer", tools=[_keep]), Plain(), Scaled(Plain())):
        assert not keeps_state(module)
    assert keeps_state(Scaled(Counting()))


class Client:
    """What it holds cannot be copied, and must not be closed twice."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def close(self) -> None:
        """Close it."""


@pytest.mark.parametrize("deep", [False, True])
def test_a_copy_shares_what_is_no_state(dspy_server: LoopbackServer, dspy_lm: Any, deep: bool) -> None:
    module = Drafting()
    module.client, module.lm, module.large = Client(), dspy_lm, list(range(5_000))  # type: ignore[attr-defined]
    module.more = {"client": module.client, "self": module}  # type: ignore[attr-defined]
    made, originals, copies = isolated(module, deep=deep)
    assert made.lm is dspy_lm and made.large == module.large and made.large is not module.large  # type: ignore[attr-defined]
    assert (made.client is module.client) is not deep  # type: ignore[attr-defined]
    assert made.more["self"] is made and (made.more["client"] is module.client) is not deep  # type: ignore[attr-defined]
    assert originals[id(made.write)] is module.write and copies[id(module.write)] is made.write
    assert made.write is not module.write and made.write.history is module.write.history


class Interpreter(dspy.PythonInterpreter):  # type: ignore[misc]
    """Belongs to the thread that first used it, as those of DSPy that run."""

    _owner_thread: int | None = None

    def execute(self, code: str, variables: Any = None, *more: Any) -> Any:
        """Run nothing."""
        self._owner_thread = self._owner_thread or threading.get_ident()
        assert self._owner_thread == threading.get_ident(), "another candidate's thread has used it"
        return {"answer": "1"}

    __call__ = execute

    def shutdown(self) -> None:
        """End nothing."""


class Interpreting(dspy.Module):  # type: ignore[misc]
    """Runs code beside its model."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.interpreter = program(), Interpreter()

    def forward(self, question: str) -> Any:
        made = self.ask(question=question)
        self.interpreter.execute(f"{made.answer}")
        meeting.wait()
        return made


def test_each_candidate_has_an_interpreter_of_its_own(dspy_server: LoopbackServer, dspy_lm: Any) -> None:
    module = Interpreting()
    result = Scaled(module, n=3, verifier=score).solve(question="q")
    assert len(result.candidates) == 3 and module.interpreter._owner_thread is None
    if VERSION < (3, 3):  # from then on DSPy makes one for each call
        assert keeps_state(dspy.ProgramOfThought("question -> answer: int", interpreter=Interpreter()))
