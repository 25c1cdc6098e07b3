"""The ways in which an input carries earlier attempts: turns, a prompt's variable, a graph's messages, a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder

from tts_plugins import Problem, Scored
from tts_plugins.adapters import Attempts
from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.conversion import text_of

VARIABLES = ("attempts", "feedback", "history")
"""Variables of a prompt that attempts go into, where an input leaves them out."""


class Carrier(Protocol):
    """A way to show attempts to what is wrapped."""

    def check(self) -> None:
        """That it can.

        Raises:
            ConfigurationError: it cannot; the text says what to change.
        """
        ...

    def first(self, value: Any) -> Any:
        """The input for a first answer."""
        ...

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """The input for a better one.

        Raises:
            ConfigurationError: this input has no place for them.
        """
        ...


def turned(messages: Sequence[BaseMessage], attempts: Attempts) -> list[BaseMessage]:
    """A conversation with the attempts as further turns."""
    return [*messages, *convert_to_messages(attempts.turns())]


@dataclass(frozen=True)
class Function:
    """A function of the user's."""

    function: Callable[[Problem, Sequence[Scored]], Any]

    def check(self) -> None:
        """It can."""

    def first(self, value: Any) -> Any:
        """As it is."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """What the function returns."""
        return self.function(problem, attempts.history)


@dataclass(frozen=True)
class Turns:
    """Turns of the conversation that goes to a chat model."""

    def check(self) -> None:
        """It can."""

    def first(self, value: Any) -> Any:
        """As it is."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """The conversation goes on."""
        if isinstance(value, PromptValue):
            value = value.to_messages()
        messages = [HumanMessage(value)] if isinstance(value, str) else convert_to_messages(value)
        return turned(messages, attempts)


@dataclass(frozen=True)
class Inside:
    """Messages that are a field of what is asked: of a frozen dataclass."""

    name: str
    messages: Carrier

    def check(self) -> None:
        """What is inside says it."""
        self.messages.check()

    def first(self, value: Any) -> Any:
        """As it is."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """The field carries them."""
        return replace(value, **{self.name: self.messages.again(getattr(value, self.name), problem, attempts)})


@dataclass(frozen=True)
class Variables:
    """A variable of the prompt that the input goes into."""

    owner: str
    prompt: BasePromptTemplate[Any] | None
    named: str | None

    def check(self) -> None:
        """That the prompt has such a variable."""
        if self.prompt is not None and not self._names():
            raise _impossible(self.owner, f"its prompt has the variables {sorted(_variables(self.prompt))}")

    def first(self, value: Any) -> Any:
        """Empty, where the input leaves it out."""
        if not isinstance(value, Mapping):
            return value
        lacking = [name for name in self._names() if name not in value]
        return {**value, **{name: [] if name in self._placeholders() else "" for name in lacking}} if lacking else value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """The attempts, after what the input has there."""
        if not isinstance(value, Mapping):
            raise _impossible(self.owner, f"its input is a {type(value).__name__}, no dict with the prompt's variables")
        # A variable that the input gives is the user's own, unless it is named.
        free = [name for name in self._names() if name == self.named or name not in value]
        if not free:
            raise _impossible(self.owner, f"the input gives {', '.join(map(repr, self._names()))} itself")
        name, shown = free[0], self._shown(free[0], attempts)
        given = value.get(name)
        if given and isinstance(shown, list):
            shown = [*given, *shown]
        elif given:
            shown = f"{given}\n\n{shown}"
        return {**self.first(value), name: shown}

    def _names(self) -> Sequence[str]:
        known = () if self.prompt is None else _variables(self.prompt)
        if self.named is not None:
            return (self.named,) if self.prompt is None or self.named in known else ()
        return [name for name in VARIABLES if name in known]

    def _placeholders(self) -> list[str | None]:
        """The prompt's messages: a placeholder by its variable, any other as None."""
        messages = self.prompt.messages if isinstance(self.prompt, ChatPromptTemplate) else ()
        return [m.variable_name if isinstance(m, MessagesPlaceholder) else None for m in messages]

    def _shown(self, name: str, attempts: Attempts) -> Any:
        places = self._placeholders()
        if name not in places:
            return attempts.text()
        if places[-1] == name:
            return turned([], attempts)
        return [HumanMessage(attempts.text())]  # the question comes after it: turns would stand before it


@dataclass(frozen=True)
class State:
    """`messages` of a graph's state."""

    owner: str
    known: bool

    def check(self) -> None:
        """That there are such."""
        if not self.known:
            raise _impossible(self.owner, "it begins with neither a prompt nor a chat model")

    def first(self, value: Any) -> Any:
        """As it is."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Its conversation goes on; of each attempt it shows the last message."""
        self.check()
        said = replace(attempts, history=tuple(a.replace(text=text_of(_last(a.output))) for a in attempts.history))
        return {**value, "messages": turned(convert_to_messages(value["messages"]), said)}


def _last(output: Any) -> Any:
    messages = output.get("messages") if isinstance(output, Mapping) else None
    return messages[-1] if messages else output


def _variables(prompt: BasePromptTemplate[Any]) -> set[str]:
    return {*prompt.input_variables, *prompt.optional_variables}


def _impossible(owner: str, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{owner}: earlier attempts cannot be shown to it, which revision needs: {why}; put ('placeholder', "
        "'{attempts}') at the end of its prompt, or a variable {attempts} or {feedback} anywhere in it, or give "
        "revision=function of (problem, attempts) that returns the input"
    )
