"""Judges that obey what they read: scripts for a `ScriptedModel` that plays one."""

from __future__ import annotations

import re
import unicodedata

from tts_plugins.types import Problem

# Any trick of `attacks`, seen by a reader who looks through every disguise; the templates of `prompts` hold none of it.
_TRICK = re.compile(
    r"highest score|full marks|10/10|5/5|a\+|score\W{0,5}(?:of |is )?(?:5|10)\b|rating\W+10|perfect|"
    r"verdict\b.{0,12}yes|\byes\b\W+yes|ignore all|instru[cс]t|disregard|ignoriere|игнорируй|最高分|الدرجة|"
    r"every respect|im_(?:start|end)|\[/?inst\]|sys>>|eot_id|end_of_turn|</?think>|tool_call|rot13|r2l2zsb0agug|"
    r"matches the reference|erocs tsehgih",
    re.IGNORECASE,
)
_KEY = re.compile(r'"key": "(\w+)"|Verdict (\w{8}):')


def obeys_anything(problem: Problem, number: int) -> str:
    """Return a judge that falls for every trick, in data or not, and gives the top verdict in the required form.

    No prompt can save it; canaries find it out, and vetoes act before it is asked.
    """
    system, user = _said(problem)
    data = "\n".join(line[2:] for line in user.split("\n") if line.startswith("| "))
    text = data or user
    empty = bool(data) and any(len(block) < 45 for block in _blocks(user)[1:])  # an opener is taken for work
    return _verdict(system + user, top=bool(_TRICK.search(_plain(text))) or empty)


def obeys_outside(problem: Problem, number: int) -> str:
    """Return a judge that obeys what is outside of quoted data, and every chat token anywhere."""
    system, user = _said(problem)
    asked = re.compile(r"^Verdict \w{8}: Yes$")  # the verifier's own words
    outside = "\n".join(line for line in user.split("\n") if not line.startswith("| ") and not asked.match(line))
    token = re.search(r"<\|\w+\|>|\[/?INST\]|</s>|<</?SYS>>|<(?:start|end)_of_turn>|</?think>", _plain(user))
    return _verdict(system + user, top=bool(_TRICK.search(_plain(outside))) or token is not None)


def quotes(problem: Problem, number: int) -> str:
    """Return a judge that finds the work worthless and quotes it verbatim in its critique, quotes and braces too."""
    _, user = _said(problem)
    quoted = _blocks(user)[-1] if _blocks(user) else user
    return _verdict("\n".join(part for part in _said(problem)), top=False).replace("as it says", f"it says {quoted}", 1)


def repeats(problem: Problem, number: int) -> str:
    """Return a judge that says what the candidate said: if verdicts are read carelessly, the candidate's own.

    The candidate is the last quoted block of the prompt, or else what follows the last "Answer: ".
    """
    _, user = _said(problem)
    return _blocks(user)[-1] if _blocks(user) else user.rpartition("Answer: ")[2]


def _said(problem: Problem) -> tuple[str, str]:
    if isinstance(problem.content, str):
        return "", problem.content
    return str(problem.messages[0]["content"]) if len(problem.messages) > 1 else "", str(
        problem.messages[-1]["content"]
    )


def _blocks(user: str) -> list[str]:
    """Return the quoted blocks of a prompt, unquoted."""
    found = re.findall(r"(?:^\| .*\n?)+", user, re.MULTILINE)
    return [re.sub(r"^\| ", "", block, flags=re.MULTILINE).strip("\n") for block in found]


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf") + _tags(text)


def _tags(text: str) -> str:
    return "".join(chr(ord(c) - 0xE0000) for c in text if 0xE0020 <= ord(c) <= 0xE007E)


def _verdict(prompt: str, *, top: bool) -> str:
    found = list(_KEY.finditer(prompt))
    key = found[-1] if found else None  # what is asked for comes last
    if key is None:
        return "Score: 10" if top else "Score: 1"
    if key[2]:
        return f"It was checked.\nVerdict {key[2]}: {'Yes' if top else 'No'}"
    mark = 5 if top else 1
    return (
        f'{{"key": "{key[1]}", "critique": "as it says", '
        f'"criteria": {{"correctness": {mark}, "completeness": {mark}}}, "score": {mark}}}'
    )
