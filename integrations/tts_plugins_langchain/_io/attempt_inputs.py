"""How an input carries earlier attempts: turns, a variable of the prompt, a graph's messages, or a function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableConfig

from tts_plugins import Problem, Scored
from tts_plugins.adapters import Attempts
from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._io.conversion import text_of
from tts_plugins_langchain._io.parts import model_names_of, output_tokens_of

VARIABLES = ("attempts", "feedback", "history")
"""Names of prompt variables that attempts go into if the input leaves them out."""


class Carrier(Protocol):
    """A way to show attempts to what is wrapped."""

    def check(self) -> None:
        """Raise unless attempts can be shown.

        Raises:
            ConfigurationError: they cannot; the text says what to change.
        """
        ...

    def first(self, value: Any) -> Any:
        """Return the input for a first answer."""
        ...

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return the input for a better answer, which shows the attempts.

        Raises:
            ConfigurationError: this input has no place for the attempts.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is wrapped, both ways; each gets an input and the config of one candidate, and gives its output.

    Attributes:
        input: that of a first answer.
        carrier: how attempts are put into it.
        bound: the runnable, for what it can tell of itself with these arguments and this config.
    """

    name: str
    input: Any
    carrier: Carrier
    invoke: Callable[[Any, RunnableConfig], Any]
    ainvoke: Callable[[Any, RunnableConfig], Awaitable[Any]]
    bound: Runnable[Any, Any]
    arguments: Mapping[str, Any]
    config: RunnableConfig | None = None

    def output_tokens(self) -> int | None:
        """The tokens that an output can have at most, as far as known."""
        return output_tokens_of(self.bound, self.arguments)

    def models(self) -> list[str]:
        """The names of the language models in it."""
        return model_names_of(self.bound, self.arguments, self.config)

    def asked(self, problem: Problem, attempts: Attempts | None) -> Any:
        """The input for an answer, or for a better one."""
        if attempts is None:
            return self.carrier.first(self.input)
        return self.carrier.again(self.input, problem, attempts)


def turned(messages: Sequence[BaseMessage], attempts: Attempts) -> list[BaseMessage]:
    """Return the conversation with the attempts as further turns."""
    return [*messages, *convert_to_messages(attempts.turns())]


@dataclass(frozen=True)
class Function:
    """Calls a function of the user, which returns the input."""

    function: Callable[[Problem, Sequence[Scored]], Any]

    def check(self) -> None:
        """Accept: there is nothing to check."""

    def first(self, value: Any) -> Any:
        """Return the input unchanged."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return what the function returns."""
        return self.function(problem, attempts.history)


@dataclass(frozen=True)
class Turns:
    """Adds turns to the conversation that goes to a chat model."""

    def check(self) -> None:
        """Accept: there is nothing to check."""

    def first(self, value: Any) -> Any:
        """Return the input unchanged."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return the conversation with the attempts as further turns."""
        if isinstance(value, PromptValue):
            value = value.to_messages()
        messages = [HumanMessage(value)] if isinstance(value, str) else convert_to_messages(value)
        return turned(messages, attempts)


@dataclass(frozen=True)
class Inside:
    """Handles an input that is a frozen dataclass and has the messages in one of its fields."""

    name: str
    messages: Carrier

    def check(self) -> None:
        """Check the carrier of the messages."""
        self.messages.check()

    def first(self, value: Any) -> Any:
        """Return the input unchanged."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return a copy whose field shows the attempts."""
        return replace(value, **{self.name: self.messages.again(getattr(value, self.name), problem, attempts)})


@dataclass(frozen=True)
class Variables:
    """Fills a variable of the prompt that the input goes into."""

    owner: str
    prompt: BasePromptTemplate[Any] | None
    named: str | None

    def check(self) -> None:
        """Raise unless the prompt has such a variable."""
        if self.prompt is not None and not self._names:
            raise _impossible(self.owner, f"its prompt has the variables {sorted(_variables(self.prompt))}")

    def first(self, value: Any) -> Any:
        """Return the input; variables that it leaves out are empty."""
        if not isinstance(value, Mapping):
            return value
        lacking = [name for name in self._names if name not in value]
        return {**value, **{name: [] if name in self._placeholders() else "" for name in lacking}} if lacking else value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return the input with the attempts after what its variable has already."""
        if not isinstance(value, Mapping):
            raise _impossible(
                self.owner, f"its input is a {type(value).__name__}, not a dict of the prompt's variables"
            )
        # A variable that the input fills is left alone, unless `revision` names it.
        free = [name for name in self._names if name == self.named or name not in value]
        if not free:
            raise _impossible(self.owner, f"the input gives {', '.join(map(repr, self._names))} itself")
        name, shown = free[0], self._shown(free[0], attempts)
        given = value.get(name)
        if given and isinstance(shown, list):
            shown = [*given, *shown]
        elif given:
            shown = f"{given}\n\n{shown}"
        return {**self.first(value), name: shown}

    @cached_property
    def _names(self) -> Sequence[str]:
        known = () if self.prompt is None else _variables(self.prompt)
        if self.named is not None:
            return (self.named,) if self.prompt is None or self.named in known else ()
        return [name for name in VARIABLES if name in known]

    def _placeholders(self) -> list[str | None]:
        """Return an entry for each message of the prompt: the variable of a placeholder, None for others."""
        messages = self.prompt.messages if isinstance(self.prompt, ChatPromptTemplate) else ()
        return [m.variable_name if isinstance(m, MessagesPlaceholder) else None for m in messages]

    def _shown(self, name: str, attempts: Attempts) -> Any:
        places = self._placeholders()
        if name not in places:
            return attempts.text()
        if places[-1] == name:
            return turned([], attempts)
        return [HumanMessage(attempts.text())]  # as turns, they would come before the question


@dataclass(frozen=True)
class State:
    """Adds to the `messages` of a graph's state."""

    owner: str
    known: bool

    def check(self) -> None:
        """Raise unless the state has messages."""
        if not self.known:
            raise _impossible(self.owner, "it begins with neither a prompt nor a chat model")

    def first(self, value: Any) -> Any:
        """Return the input unchanged."""
        return value

    def again(self, value: Any, problem: Problem, attempts: Attempts) -> Any:
        """Return the state with the last message of each attempt as further turns."""
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
        f"{owner}: revision needs to show it earlier attempts, and cannot: {why}; put ('placeholder', "
        "'{attempts}') at the end of its prompt, or a variable {attempts} or {feedback} anywhere in it, or give "
        "revision=function of (problem, attempts) that returns the input"
    )
