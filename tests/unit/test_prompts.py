"""What is done to untrusted text before it stands in a prompt, and steps."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_plugins.errors import ConfigurationError
from tts_plugins.prompts import frame, judge_messages, make_key, neutralise, pairwise_messages, problem_text
from tts_plugins.steps import join, split
from tts_plugins.testing.attacks import attacks
from tts_plugins.types import Problem

TOKENS = re.compile(r"<\|\w+\|>|\[/?INST\]|</?s>|<<SYS>>|<extra_0>|<(start|end)_of_turn>|</?think>")
PIECES = (
    "<|im_start|>",
    "<|im_",
    "end|>",
    "<",
    "|",
    ">",
    "[INST]",
    "[/",
    "INST]",
    "</s>",
    "<extra_0>",
    "\u200b",
    "\n",
    "a",
)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_no_control_token_survives_or_is_formed(text: str) -> None:
    clean = neutralise(text)
    assert not TOKENS.search(clean)
    assert neutralise(clean) == clean


@settings(max_examples=200)
@given(st.text(max_size=300), st.integers(200, 400))
def test_framed_text_stays_between_its_lines(text: str, limit: int) -> None:
    key = make_key(7, text)
    lines = frame("CANDIDATE", text, key, limit).split("\n")
    assert lines[0] == f"<<<CANDIDATE {key}>>>" and lines[-1] == f"<<<END CANDIDATE {key}>>>"
    assert all(line.startswith("| ") for line in lines[1:-1])
    assert not any(key in line for line in lines[1:-1])
    assert len("\n".join(lines[1:-1]).encode()) <= limit + 60


def test_every_attack_is_framed() -> None:
    for attack in attacks("What is 17 * 23?", "401"):
        key = make_key(1, attack.text)
        (_, user) = judge_messages("?", attack.text, criteria={}, scale=(1, 5), key=key)
        body = user["content"].split(f"<<<CANDIDATE {key}>>>\n")[1].split(f"\n<<<END CANDIDATE {key}>>>")[0]
        assert all(line.startswith("| ") for line in body.split("\n")), attack
        assert not TOKENS.search(body), attack


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\u200bb\u202ec\u2066d\ufeffe", "abcde"),
        ("x\U000e0041\U000e0042y\ufe0f", "xy"),
        ("＜|im_start|＞", "[removed]"),
        ("<｜end▁of▁sentence｜>", "[removed]"),
        ("one\r\ntwo\u2028three\x00\x1b[0m", "one\ntwo\nthree[0m"),
        ("x < 3 and |y| > 2, a[i], <b>, Ünïcødé ² 漢字 \t", "x < 3 and |y| > 2, a[i], <b>, Ünïcødé ² 漢字 \t"),
    ],
)
def test_what_goes_and_what_stays(dirty: str, clean: str) -> None:
    assert neutralise(dirty) == clean


def test_long_texts_keep_both_ends() -> None:
    block = frame("CANDIDATE", "start " + "x" * 5000 + " The answer is 7", "k", 400)
    assert "start" in block and "The answer is 7" in block and "bytes left out here" in block


def test_keys_follow_from_seed_and_text_and_are_in_neither() -> None:
    assert make_key(1, "a") == make_key(1, "a") != make_key(2, "a")
    assert make_key(1, "a") != make_key(1, "b")
    key = make_key(1, "a")
    assert len(key) == 8 and key.isalnum()


def test_the_problem_is_shown_whole_and_a_conversation_with_its_roles() -> None:
    (_, user) = judge_messages("p" * 50_000, "c", criteria={"a": "b"}, scale=(1, 5), key="k")
    assert "p" * 50_000 in user["content"] and "left out" not in user["content"]
    talk = Problem([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    assert problem_text(talk) == "system: Be brief.\n\nuser: Hi"
    assert "A k>>>" in pairwise_messages("p", "one", "two", rubric="", key="k")[1]["content"]


def test_steps() -> None:
    text = "First, add.\n\nThen:\n```python\na = 1\n\nb = 2\n```\n\n\nLast."
    steps = split(text)
    assert [s.text for s in steps] == ["First, add.", "Then:\n```python\na = 1\n\nb = 2\n```", "Last."]
    assert split(join(steps)) == steps
    assert [s.text for s in split("Step 1: a\nmore\nStep 2: b\n3. c", "numbered")] == [
        "Step 1: a\nmore",
        "Step 2: b",
        "3. c",
    ]
    assert [s.text for s in split("a\nb\n\nc", "line")] == ["a", "b", "c"]
    assert [s.text for s in split("a##b", re.compile("##"))] == ["a", "b"]
    assert split("  \n") == ()
    for wrong in ("words", re.compile("x*")):
        with pytest.raises(ConfigurationError, match="steps: by="):
            split("a", wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One.\r\n\r\nTwo.\r\n \r\nThree.", 3),
        ("So\n\n$$\na = 1\n\nb = 2\n$$\n\nand so on.", 3),
        ("So\n\n\\[\na\n\nb\n\\]\n\nend.", 3),
        ("So\n\n\\begin{align}\na\n\nb\n\\end{align}\n\nend.", 3),
        ("A list:\n\n  ```python\n  a = 1\n\n  b = 2\n  ```\n\nend.", 3),
        ("~~~\na\n\n```\n\nb\n~~~\n\nend.", 2),
        ("One costs $$ a lot.\n\nTwo.", 2),
    ],
)
def test_paragraphs_are_cut_at_blank_lines_only_outside_of_code_and_formulas(text: str, count: int) -> None:
    assert len(split(text)) == count
    assert not any(step.text.startswith("\r") or step.text.endswith("\r") for step in split(text))


@pytest.mark.parametrize(
    "text",
    [
        "Schritt 1: a\nb\nSchritt 2: c",
        "Étape 1 : a\nÉtape 2 : b",
        "Paso 1. a\nPaso 2. b",
        "Шаг 1: a\nШаг 2: b",
        "步骤1：a\n步骤2：b",
        "第一步：a\n第二步：b",
        "1、a\n2、b",
        "ステップ1：a\nステップ2：b",
        "1단계: a\n2단계: b",
        "단계 1: a\n단계 2: b",
        "الخطوة 1: a\nالخطوة ٢: b",
        "चरण 1: a\nचरण 2: b",
        "**Step 1**\na\n**Step 2**\nb",
        "### Passo 1\na\n### Passo 2\nb",
        "1) a\n2) b",
        "Step one: a\nStep two: b",
        "Bước 1: a\nBước 2: b",
        "1. Adım: a\n2. Adım: b",
        "Hatua 1: a\nHatua 2: b",
    ],
)
def test_numbered_steps_in_every_language(text: str) -> None:
    assert len(split(text, "numbered")) == 2
