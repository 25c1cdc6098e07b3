"""A loopback server's replies in the manner of llama.cpp, vLLM and Mistral, which continue a text, and of none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.testing.loopback import Reply

STEPS = ["Take 3.", "Add 4 to get 7.", "Add 5 to get 12.", "Answer: 12"]
Body = dict[str, Any]
ModelOf = Callable[..., OpenAICompatibleModel]  # of a server, with further settings


def asked(body: Body) -> list[str]:
    return [body["prompt"]] if "prompt" in body else [m["content"] for m in body["messages"]]


def goes_on(body: Body, whole: list[str] = STEPS) -> str:
    """What follows the text of the last turn; five to eight where it is the probe."""
    text = asked(body)[-1]
    if "k7q2" in text:
        return " five six seven eight"
    done = sum(step in text for step in whole)
    return "\n\n".join(whole[done:])


def llama(body: Body, index: int) -> Reply:
    last = body["messages"][-1]
    return Reply(goes_on(body), echo=last["content"]) if last["role"] == "assistant" else Reply("\n\n".join(STEPS))


def vllm(body: Body, index: int) -> Reply:
    last = body["messages"][-1]
    if last["role"] == "assistant" and body.get("continue_final_message") and body["add_generation_prompt"] is False:
        return Reply(goes_on(body), tells_stop=True)
    return Reply("Hello again. How can I help?" if last["role"] == "assistant" else "\n\n".join(STEPS), tells_stop=True)


def mistral(body: Body, index: int) -> Reply:
    return Reply(goes_on(body) if body["messages"][-1]["role"] == "assistant" else "\n\n".join(STEPS))


def chatty(body: Body, index: int) -> Reply:
    """Heeds no instruction: it begins anew each time, and goes on by one step."""
    written = sum(step in asked(body)[-1] for step in STEPS)
    return Reply("\n\n".join(f"Step {i + 1}: {s}" for i, s in enumerate(STEPS[: written + 1])))


def completes(body: Body, index: int) -> Reply:
    """Begins anew in a chat, and goes on where a text is to be completed."""
    return Reply(goes_on(body)) if "prompt" in body else chatty(body, index)


def said(**fields: Any) -> str:
    """A completion in the form that `dspy.ChatAdapter` reads."""
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in {**fields, "completed": ""}.items())
