from __future__ import annotations

import threading

import pytest

from tts_plugins.answers import boxed, equivalent, extract, normalise


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so we get \boxed{\frac{1}{2}}.", "1/2"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4} and \boxed{5", "4"),
        (r"\boxed {x^{2}}", "x^{2}"),
        ("#### 72", "72"),
        ("The answer is 1,200.", "1200"),
        ("The answer is 12. That is because 6 + 6 = 12.", "12"),
        ("The answer is 3.5 of them", "3.5 of them"),
        ("Answer: 3\nAnswer: 4", "4"),
        ("Final answer = 7", "7"),
        ("The final answer is: 7!", "7"),
        ("Thus, the ANSWER IS **yes**", "yes"),
        ("17", "17"),
        ("  Paris.  ", "paris"),
        ('{"b": 1, "a": [1, 2]}', '{"a":[1,2],"b":1}'),
        ('Here it is:\n```json\n{"a": 1}\n```\nDone, I hope that it helps.', '{"a":1}'),
        ("```json\n{broken\n```\nThe answer is 5", "5"),
        ("[1, 2]", "[1,2]"),
        ("", None),
        ("   ", None),
        ("I cannot say, since the question is not clear to me at all.", None),
        ("one line\nand another", None),
        (r"\boxed{}", None),
        # Regressions: what models write every day
        ("The answer is:\n\n**12**", "12"),
        ("Answer:\n\n4 apples", "4 apples"),
        ("First I add.\n**Final Answer**: 12", "12"),
        ("**Answer:** 12, as was to be shown above", "12, as was to be shown above"),
        ("the answer isn't plain from what the text says here", None),
        (r"so \boxed{[0, 1]}", "[0,1]"),
        ("The answer is indeed 1.51.", "1.51"),
        ("Answer = indeed 1.51", "1.51"),
        ("The answer is thus, simply: $1,200", "1200"),
        ("The answer is therefore **-3**.", "-3"),
        ("The answer is = 12", "12"),
        ("The answer is just right", "just right"),
        ("The answer is so-and-so", "so-and-so"),
        ("The answer is 42. I checked it, and the answer is correct.", "42"),
        ("The answer is 42.\nI checked it, and the answer is correct.", "42"),
        ("At first the answer is 3. Wait, the answer is 4. So be it.", "4"),
        ("Answer: the answer is 5", "5"),
        ("The answer is incorrect. No: the answer is correct.", "correct"),
        ("My first answer is 3.\nAnswer: wrong", "wrong"),
        ("The answer is \N{MINUS SIGN}5", "-5"),
        (r"The answer is \(12\).", "12"),
        (r"The answer is \[ \frac{1}{2} \]", "1/2"),
    ],
)  # fmt: skip
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("forms", "normal"),
    [
        (["1,200", "1200", "1200.0", "$1,200.00", " 1200. ", "**1200**", "1.2e3", "+1200"], "1200"),
        (["1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", "2/4", "$1/2$"], "1/2"),
        (["0.5", ".5", "0.50", "5e-1"], "0.5"),
        (["0", "-0", "0.0", "-0.000"], "0"),
        (["Yes", "yes.", "'yes'", '"Yes!"', r"\text{yes}", "*Yes*"], "yes"),
        (["6/3", "2", "2.0"], "2"),
        ([r"90^\circ", "90"], "90"),
        (["New  York", "new york"], "new york"),
        (["a.*.", "a"], "a"),
        (["1.00000000000000000000001", "1"], "1"),
        (["-1/-2", "1/2", r"\frac12", r"\dfrac 1 2"], "1/2"),
        (["50%", r"50\%", "50 %", "50"], "50"),
        (["12,345", "12{,}345", r"12\!,\!345", r"12\,345"], "12345"),
    ],
)  # fmt: skip
def test_equal_answers_have_one_form(forms: list[str], normal: str) -> None:
    assert [normalise(form) for form in forms] == [normal] * len(forms)


@pytest.mark.parametrize(
    "value", ["1/0", "1e999", "1e-999", "e5", "-", ".", "1,2", "9" * 5000, "1" + "0" * 20, "½", "", "$", "1e9999999999"]
)
def test_odd_numbers_stay_apart_and_raise_nothing(value: str) -> None:
    once = normalise(value)
    assert normalise(once) == once
    assert once == value or value in ("$", ".", "")


def test_different_numbers_stay_different() -> None:
    numbers = ["0", "1e-999", "1", "1.5", "15", "1/3", "0.3333", "-1", "1e15", "1e16", "1,000,000", "100,000"]
    assert len({normalise(n) for n in numbers}) == len(numbers)


def test_boxed() -> None:
    assert boxed("no box") is None and boxed("} {") is None and boxed(r"\boxed{a{b}c}") == "a{b}c"
    assert boxed(r"} \boxed{1} {") == "1"


def test_equivalent() -> None:
    assert equivalent("1,200", "1200.0") and not equivalent("1", "2")
    said: list[bool] = []
    thread = threading.Thread(target=lambda: said.append(equivalent("x", "y")))  # no alarm off the main thread
    thread.start()
    thread.join()
    assert said == [False]
