"""A person answers what no model was sure of: the graph is interrupted, and goes on with the person's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langgraph.types import interrupt

from tts_plugins.errors import ConfigurationError


def ask_person(owner: str, messages: Sequence[BaseMessage]) -> dict[str, Any] | None:
    """Interrupt if the last message withholds an answer that a person is to give; return the state with it.

    It runs in a node of its own, behind the model's: when the graph goes on, that node is not run again, so that
    nothing is paid for twice. Resume with a text, or with an `AIMessage`: `Command(resume="Paris")`.

    Raises:
        ConfigurationError: it is resumed with something else.
    """
    last = messages[-1] if messages else None
    reported = last.response_metadata.get("tts") if isinstance(last, AIMessage) else None
    abstained = reported.get("abstained") if isinstance(reported, Mapping) else None
    if last is None or reported is None or not abstained or not abstained.get("person"):
        return None
    asked = next((str(m.text) for m in reversed(messages) if isinstance(m, HumanMessage)), "")
    answer: object = interrupt(
        {
            "question": asked,
            "reason": abstained["reason"],
            "confidence": abstained["confidence"],
            "withheld": reported.get("withheld", ""),
        }
    )
    given = answer if isinstance(answer, AIMessage) else AIMessage(answer) if isinstance(answer, str) else None
    if given is None:
        raise ConfigurationError(
            f"{owner}: resumed with {answer!r}; resume with the answer as a text or an AIMessage: Command(resume='…')"
        )
    metadata = {**given.response_metadata, "tts": {**reported, "answered_by": "person"}}
    return {"messages": [given.model_copy(update={"id": last.id, "response_metadata": metadata})]}
