"""The loopback server's chat template, and its vocabulary, by which it takes prompts of token ids."""

from __future__ import annotations

from typing import Any

from tts_plugins.testing.loopback._replies import Body, content_text, pieces


def rendered(body: Body) -> str:
    """Return the messages in the form of ChatML, up to where the assistant begins."""
    turns = [f"<|im_start|>{m['role']}\n{content_text(m.get('content'))}<|im_end|>\n" for m in body["messages"]]
    return "".join(turns) + "<|im_start|>assistant\n"


class Vocabulary:
    """A number for each word that was ever read, so that numbers can be read back."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._words: list[str] = []

    def encode(self, text: str) -> list[int]:
        """Return the words' numbers, blanks included."""
        for word in pieces(text):
            if word not in self._numbers:
                self._numbers[word] = len(self._words)
                self._words.append(word)
        return [self._numbers[word] for word in pieces(text)]

    def decode(self, ids: list[int]) -> str:
        """Return the text again.

        Raises:
            ValueError: one of them has no meaning.
        """
        if not all(0 <= i < len(self._words) for i in ids):
            raise ValueError(f"token ids must be from 0 to {len(self._words) - 1}")
        return "".join(self._words[i] for i in ids)


def token_ids(prompt: Any) -> list[int] | None:
    """Return a prompt of token ids; None for a text, or several."""
    whole = isinstance(prompt, list) and bool(prompt) and all(type(each) is int for each in prompt)
    return prompt if whole else None
