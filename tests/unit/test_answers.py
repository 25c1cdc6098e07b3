"""Which answer a text gives, and which answers are one."""

from __future__ import annotations

import pickle
import threading

import pytest

from tts_plugins import SelfConsistency, solve
from tts_plugins.adapters import Text
from tts_plugins.answers import (
    Answer,
    boxed,
    equivalent,
    extract,
    marked,
    normalise,
    remembered,
    unfinished,
    without_thoughts,
)
from tts_plugins.testing import ScriptedModel


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so we get \boxed{\frac{1}{2}}.", "0.5"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{4} and \boxed{5", "4"),
        (r"\boxed {x^{2}}", "x^2"),
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
        ('{"reasoning": "40 and 2 make 42", "answer": 42}', '{"answer":42}'),
        ('So:\n```json\n{"steps": [{"explanation": "add"}], "final_answer": "42"}\n```', '{"final_answer":"42"}'),
        ('{"Begründung": "Es regnet.", "label": "ja"}', '{"label":"ja"}'),
        ('[{"label": "a", "chain_of_thought": "b"}]', '[{"label":"a"}]'),
        ('{"steps": ["mix", "bake"], "dish": "cake"}', '{"dish":"cake","steps":["mix","bake"]}'),
        ('{"reasoning": true, "vision": false}', '{"reasoning":true,"vision":false}'),
        ('{"explanation": "It rained."}', '{"explanation":"It rained."}'),
        ("```json\n{broken\n```\nThe answer is 5", "5"),
        ("[1, 2]", "[1,2]"),
        ("", None),
        ("   ", None),
        ("I cannot say, since the question is not clear to me at all.", None),
        ("one line\nand another", None),
        (r"\boxed{}", None),
        ("The answer is:\n\n**12**", "12"),
        ("Answer:\n\n4 apples", "4 apples"),
        ("First I add.\n**Final Answer**: 12", "12"),
        ("**Answer:** 12, as was to be shown above", "12"),
        ("the answer isn't plain from what the text says here", None),
        (r"so \boxed{[0, 1]}", "[0,1]"),
        ("The answer is indeed 1.51.", "1.51"),
        ("Answer = indeed 1.51", "1.51"),
        ("The answer is thus, simply: $1,200", "1200"),
        ("The answer is therefore **-3**.", "-3"),
        ("The answer is = 12", "12"),
        ("The answer is just right", "just right"),
        ("The answer is so-and-so", "so and so"),
        ("The answer is 42. I checked it, and the answer is correct.", "42"),
        ("The answer is 42.\nI checked it, and the answer is correct.", "42"),
        ("At first the answer is 3. Wait, the answer is 4. So be it.", "4"),
        ("Answer: the answer is 5", "5"),
        ("The answer is incorrect. No: the answer is correct.", "correct"),
        ("My first answer is 3.\nAnswer: wrong", "wrong"),
        ("The answer is \N{MINUS SIGN}5", "-5"),
        (r"The answer is \(12\).", "12"),
        (r"The answer is \[ \frac{1}{2} \]", "0.5"),
    ],
)
def test_extract(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # A later statement corrects an earlier one, whatever the forms of the two.
        (r"\boxed{41}. Wait, that is wrong. The answer is 42.", "42"),
        (r"The answer is 41. Let me recheck: \boxed{42}", "42"),
        ("#### 41\nNo, the answer is 42.", "42"),
        ("Answer: 41\n\nOn reflection:\n\n#### 42", "42"),
        ('```json\n{"answer": 41}\n```\nCorrection: the answer is 42.', "42"),
        ('The answer is 41. As JSON: {"x": 42}', '{"x":42}'),
        # A remark about an answer does not count as one.
        ("The answer is 42. The answer is reasonable.", "42"),
        ("The answer is 42. The answer is in dollars.", "42"),
        ("The answer is 42, and the answer is unique.", "42"),
        ("The answer is 42. If the answer is 43, the sum is odd.", "42"),
        ("The answer is 42. Is the answer right? Yes.", "42"),
        ("The answer is not 41. The answer is 42.", "42"),
        (r"It is not \boxed{41}, it is \boxed{42}", "42"),
        ("Die Antwort ist 42. Die Antwort ist plausibel.", "42"),
        ("答案是 42。这个答案是合理的。", "42"),
        # Headings
        ("#### Step 1\nWe add.\n#### Step 2\nWe stop.", None),
        ("## Answer\n\n42", "42"),
        ("### Final Answer\nParis", "paris"),
        ("**Final Answer**\n\n$$\n42\n$$", "42"),
        ("#### Note\nThe rest follows.\n\nThe answer is 42.", "42"),
        ("| Option | Answer |\n|:--|--:|\n| x | 41 |\n| y | 42 |", "42"),
        # Words behind the answer do not split a vote.
        ("The answer is 42, as required.", "42"),
        ("The answer is C, not B.", "C"),
        ("The answer is 42 (rounded to the nearest integer).", "42"),
        ("The answer is Paris, the capital of France.", "paris"),
        ("The answer is 6*7 = 42.", "42"),
        ("Answer: The total is 42 apples", "42 apples"),
        ("42 is the answer.", "42"),
        ("Option B is correct.", "B"),
        # Inside of a box
        (r"\boxed{\text{The answer is } 42}", "42"),
        (r"I will put it in \boxed{answer}. So \boxed{42}", "42"),
        (r"$x = \boxed{2}$ or $x = \boxed{3}$", "2,3"),
        (r"\boxed{2} and \boxed{3}", "2,3"),
        # Refusals and openers
        ("I don't know.", None),
        ("Let me think.", None),
        ("Lo siento, no puedo ayudar.", None),
        ("Yes, because 7 is prime.", "yes"),
        ("No. 9 is divisible by 3.", "no"),
        # A star that no other one opens
        ("Answer: A*", "A*"),
        ("The answer is A*.", "A*"),
        (r"\boxed{A*}", "A*"),
        ("**Answer:** A*", "A*"),
        ("Answer: *A*", "A"),
        ("*Answer: A*", "A"),
        ("* Answer: x*", "x*"),
        ("**Answer: A**", "A"),
        ("Answer: 5*", "5"),
        # A factorial where the text has another
        ("There are 5! permutations. The answer is 5!.", "5!"),
        (r"\boxed{5!}", "5!"),
    ],
)
def test_the_right_place(text: str, answer: str | None) -> None:
    assert extract(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        "(B)",
        "B.",
        "**B**",
        "**(B)**",
        "option B",
        "Option (B)",
        "B) Paris",
        "B. Paris",
        r"\textbf{(B)}",
        r"\text{B}",
        "$B$",
        r"$\boxed{B}$",
        "B because it rains",
        "B, not C",
        "B - Paris",
        "choice B",
        "[B]",
        "`B`",
        '"B"',
        "Ｂ",
    ],
)
def test_choice_letters_in_all_their_dresses_are_one_vote(text: str) -> None:
    assert extract(f"Reasoning.\n\nThe answer is {text}") == "B"
    assert extract(f"Reasoning.\n\nAnswer: {text}") == "B"


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("A cat", "cat"),
        ("A and C", "a and c"),
        ("J. R. R. Tolkien", "j. r. r. tolkien"),
        ("A = 5", "A=5"),
        ("C++", "C++"),
        ("A'", "A'"),
        ("B(2, 3)", "B(2,3)"),
        ("D minor", "d minor"),
    ],
)
def test_what_only_begins_with_a_letter_is_no_choice(value: str, key: str) -> None:
    assert extract(f"The answer is {value}") == key


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>The answer is 41?</think>\n42", "42"),
        ("[THINK]The answer is 41[/THINK]42", "42"),
        ("<|begin_of_thought|>41<|end_of_thought|><|begin_of_solution|>\\boxed{42}<|end_of_solution|>", "42"),
        ("◁think▷41◁/think▷The answer is 42", "42"),
        ("<seed:think>41</seed:think>The answer is 42", "42"),
        ("The template ate the tag. The answer is 41.\n</think>\nThe answer is 42.", "42"),
        ("<|channel|>analysis<|message|>41?<|end|><|start|>assistant<|channel|>final<|message|>42<|return|>", "42"),
        ("<|channel|>analysis<|message|>The answer is 41", None),
        ("analysisWe need 41.assistantfinalThe answer is 42", "42"),
        ("<think>The answer is 41", None),
        ("[THINK]\\boxed{41}", None),
        ("<think>\\boxed{41}</think>", None),
        ("I put my thoughts between `<think>` tags. The answer is 42.", "42"),
        ("<THINKING>41</THINKING>42", "42"),
    ],
)
def test_thoughts_hold_no_answer(text: str, answer: str | None) -> None:
    assert extract(text) == answer


def test_a_thought_that_never_closes_is_unfinished() -> None:
    assert unfinished("<think>so") and unfinished("<|channel|>analysis<|message|>so") and unfinished("a</think>")
    assert not unfinished("<think>so</think>42") and not unfinished("42") and not unfinished("x < y and [THING]")
    assert without_thoughts("a <think>b</think> c") == "a  c"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Antwort: 3,5", "3.5"),
        ("Die Antwort lautet 1.200,50.", "1200.5"),
        ("Die richtige Antwort ist (B).", "B"),
        ("Réponse finale : 3,5", "3.5"),
        ("La réponse est donc 42.", "42"),
        ("La respuesta correcta es la opción B.", "B"),
        ("A resposta é 1.200.", "1200"),
        ("La risposta è 42.", "42"),
        ("Het juiste antwoord is B.", "B"),
        ("Svaret är 42.", "42"),
        ("Odpowiedź brzmi: 42", "42"),
        ("Odpověď je 42.", "42"),
        ("Răspunsul este 42.", "42"),
        ("Ответ — 1 200.", "1200"),
        ("Правильный ответ: Б", "Б"),
        ("Відповідь: 42", "42"),
        ("Η απάντηση είναι 42.", "42"),
        ("Cevap 42'dir.", "42"),
        ("Doğru cevap: B", "B"),
        ("Đáp án là 42.", "42"),
        ("Chọn đáp án B", "B"),
        ("Jawabannya adalah 42.", "42"),
        ("Vastaus on 42.", "42"),
        ("A válasz: 42", "42"),
        ("התשובה היא 42.", "42"),
        ("الإجابة هي ٤٢", "42"),
        ("الجواب النهائي: ٣٫٥", "3.5"),
        ("پاسخ: ۴۲", "42"),
        ("उत्तर: ४२", "42"),
        ("उत्तर 42 है।", "42"),
        ("উত্তর হল ৪২।", "42"),
        ("சரியான விடை: 42", "42"),
        ("సమాధానం 42.", "42"),
        ("คำตอบคือ 42", "42"),
        ("ข้อที่ถูกคือ\n\nคำตอบ: B", "B"),
        ("所以答案为 42。", "42"),
        ("故选：B。", "B"),
        ("因此，选择 B", "B"),
        ("最终答案：４２", "42"),
        ("答案是选项B", "B"),
        ("答えは42です。", "42"),
        ("正解はBです。", "B"),
        ("【答え】42", "42"),
        ("정답은 42입니다.", "42"),
        ("답: B", "B"),
        ("Jibu ni 42.", "42"),
        ("Ìdáhùn: 42", "42"),
        ("Amsa: 42", "42"),
        ("Sagot: 42", "42"),
        ("პასუხი: 42", "42"),
        ("Պատասխան՝ 42", "42"),
        ("Хариулт: 42", "42"),
        ("መልስ፦ 42", "42"),
        ("ចម្លើយ៖ 42", "42"),
        ("ຄຳຕອບ: 42", "42"),
        ("အဖြေ - 42", "42"),
        ("ഉത്തരം: 42", "42"),
        ("ಉತ್ತರ: 42", "42"),
        ("જવાબ: 42", "42"),
        ("ਜਵਾਬ: 42", "42"),
        ("Atsakymas: 42", "42"),
        ("Atbilde: 42", "42"),
        ("Vastus: 42", "42"),
        ("Odgovor: 42", "42"),
        ("Отговор: 42", "42"),
        ("Die korrekte Option ist C.", "C"),
        ("Antwort B ist richtig.", "B"),
        ("La réponse est la C.", "C"),
        ("La réponse correcte est l'option C.", "C"),
        ("La bonne option est C.", "C"),
        ("La réponse B est correcte.", "B"),
        ("La réponse est le 42.", "42"),
        ("La opción correcta es la B.", "B"),
        ("Opción B es la correcta.", "B"),
        ("La B es la correcta.", "B"),
        ("A opção correta é a B.", "B"),
        ("A resposta é a A.", "A"),
        ("La risposta corretta è la B.", "B"),
        ("La resposta correcta és la B.", "B"),
        ("De juiste optie is C.", "C"),
        ("Rätt alternativ är B.", "B"),
        ("Poprawna opcja to B.", "B"),
        ("Вариант B верен.", "B"),
        ("Правильный вариант: B", "B"),
        ("Doğru seçenek B'dir.", "B"),
        ("Η σωστή απάντηση είναι το B.", "B"),
        ("الخيار الصحيح هو B", "B"),
        ("پاسخ صحیح گزینه B است.", "B"),
        ("सही विकल्प: (C)", "C"),
        ("正しい選択肢は(C)です。", "C"),
        ("올바른 선택지는 C입니다.", "C"),
        ("Lựa chọn đúng là B.", "B"),
        ("Pilihan yang benar adalah B.", "B"),
        ("The right answer is the B.", "B"),
        ("Ответ: б)", "Б"),
        ("Правильный ответ: Б) Москва", "Б"),
        ("الإجابة الصحيحة هي (ب).", "ب"),
        ("התשובה: ב. ירושלים", "ב"),
        ("उत्तर: ख) दिल्ली", "ख"),
        ("คำตอบ: ข. กรุงเทพ", "ข"),
        ("정답: (나)", "나"),
        ("答えは(ア)です。", "ア"),
        # No letters of choices, but the beginnings of words, and names with their articles.
        ("Ответ: В Москве", "в москве"),
        ("คำตอบ: กิน", "กิน"),
        ("答案是甲公司。", "甲公司"),
        ("정답: 나무", "나무"),
        ("La respuesta es la Habana.", "la habana"),
        ("La réponse est la Belgique.", "la belgique"),
        ("Answer: \u200b\u200b42", "42"),
        ("\u200fالإجابة: 42\u200f", "42"),
    ],
)
def test_every_language(text: str, answer: str) -> None:
    assert str(extract(f"1 + 1\n\n{text}")) == answer
    assert marked(text)


def test_the_raw_answer_stands_beside_its_key() -> None:
    found = extract(r"so \boxed{\dfrac{1}{2}}")
    assert found == "0.5" and found.raw == r"\dfrac{1}{2}"
    again = pickle.loads(pickle.dumps(found))
    assert (again, again.raw) == (found, found.raw) and isinstance(again, Answer)


@pytest.mark.parametrize(
    "text",
    [
        "#### Step 1\nWe add 1 and 2.",
        "## Step 2: the sum",
        "Let us find the answer.",
        "The answer depends on x.",
        "42",
        "",
        "Schritt 2: Wir addieren.",
        "<think>The answer is 42",
    ],
)
def test_what_ends_no_solution(text: str) -> None:
    assert not marked(text)


@pytest.mark.parametrize(
    ("forms", "normal"),
    [
        (
            [
                "1,200",
                "1200",
                "1200.0",
                "$1,200.00",
                " 1200. ",
                "**1200**",
                "1.2e3",
                "+1200",
                "1 200",
                "1'200",
                "1_200",
                r"1{,}200",
                r"1\,200",
                r"1,\!200",
                "1200 dollars",
                "1\u00a0200",
                "１２００",
            ],
            "1200",
        ),
        (["1/2", r"\frac{1}{2}", r"\dfrac{1}{2}", "2/4", "$1/2$", "½", "0.5", ".5", "0.50", "5e-1", "零点五"], "0.5"),
        (["-7/8", "-0.875", r"-\frac78", "−⅞"], "-0.875"),
        (["1½", r"1\frac{1}{2}", "3/2", "1.5"], "1.5"),
        (["0", "-0", "0.0", "-0.000"], "0"),
        (["Yes", "yes.", "'yes'", '"Yes!"', r"\text{yes}", "*Yes*".strip("*"), "“Yes”"], "yes"),
        (["6/3", "2", "2.0"], "2"),
        ([r"90^\circ", "90°", r"90 \text{ degrees}", "90 degrees", r"90^{\circ}"], "90°"),
        (["New  York", "new york", "New-York"], "new york"),
        (["-1/-2", "1/2", r"\frac12", r"\dfrac 1 2"], "0.5"),
        (["１，２００", "1200"], "1200"),
        (["一百二十", "壹佰贰拾", "百二十", "120"], "120"),
        (["三万五千", "3万5000", "3.5万", "35000"], "35000"),
        (["二〇二四", "二千零二十四", "2024"], "2024"),
        (["三分之一", "三分の一", "1/3"], "1/3"),
        (["负五", "-五", "−5"], "-5"),
        (["5 km", "5公里", "5 километров", "5 kilómetros", "5キロメートル"], "5 km"),
        (["5 h", "5小时", "5 Stunden", "5 heures", "5 часов", "5 ساعات"], "5 h"),
        (["5 min", "5 minutes", "5 Minuten", "5分钟"], "5 min"),
        (["5 m²", "5 ㎡", "5 m^2", "5 square meters"], "5 m^2"),
        (["5 °C", "5 degrees Celsius", "5 ℃"], "5°C"),
        (["5元", "5 yuan", "CNY 5", "RMB5"], "元5"),
        (["5 руб.", "5 рублей", "₽5"], "₽5"),
        (["5 US dollars", "$5", "USD 5", "5美元"], "5"),
        (["3 PM", "3:00 p.m."], "3 p.m"),
        (["14.30 Uhr", "14:30 Uhr", "14h30", "14时30分", "14:30"], "14:30"),
        (["4. Juli 1776", "4 juillet 1776", "4 de julio de 1776", "1776年7月4日", "4 июля 1776 г."], "1776-07-04"),
        (["Ja", "ja."], "ja"),
        (["`42`", "42"], "42"),
        (["50%", r"50\%", "50 %", "50 percent", "٥٠٪", "百分之五十", "百分之50"], "50%"),
        (["12,345,678", "12{,}345{,}678", r"12\,345\,678", "12.345.678", "12 345 678"], "12345678"),
        (["1.200,50", "1,200.50", "1 200,5"], "1200.5"),
        (["7/3", r"2\frac{1}{3}", "2 1/3", "2⅓"], "7/3"),
        ([r"0.\overline{3}", r"\frac{1}{3}", r"0.\dot{3}", "0.(3)"], "1/3"),
        (["3e8", r"3\times10^8", r"3 \cdot 10^{8}", "3×10⁸", "300000000"], "300000000"),
        (["0.30000000000000004", "0.3"], "0.3"),
        (["x=5", "x = 5", "5 = x", "$x=5$"], "x=5"),
        ([r"\{1,2\}", r"\{2, 1\}", "{1, 2}", r"\left\{1,2\right\}"], r"\{1,2\}"),
        ([r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"], "[[1,2],[3,4]]"),
        ([r"\frac{\sqrt{3}}{2}", r"\tfrac{\sqrt3}2", "√3/2"], "√(3)/2"),
        (["The Eiffel Tower", "Eiffel Tower", "the Eiffel tower."], "eiffel tower"),
        (["July 4, 1776", "4 July 1776", "1776-07-04", "07/04/1776", "4th of July, 1776"], "1776-07-04"),
        (["10:30 AM", "10:30 am", "10:30 a.m."], "10:30 am"),
        (["5 cm", r"5 \text{ cm}", r"5\,\mathrm{cm}", "5 centimeters", "5cm"], "5 cm"),
        (["€5", "5 €", "5 euros", "EUR 5"], "€5"),
    ],
)
def test_equal_answers_have_one_form(forms: list[str], normal: str) -> None:
    assert [normalise(form) for form in forms] == [normal] * len(forms)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("5!", "5"),
        ("n!", "n"),
        ("f'", "f"),
        ("x''", "x'"),
        ('5"', "5"),
        ("5'", "5"),
        ("5 MW", "5 mW"),
        ("N", "n"),
        (r"\frac{x+2}{7}", "x+2/7"),
        (r"1\frac12", r"\frac{11}{2}"),
        ("x^{2y}", "x^2y"),
        (r"\sqrt{x+1}", r"\sqrt{x}+1"),
        (r"\sqrt[3]{2}", r"3\sqrt{2}"),
        (r"\overline{AB}", "AB"),
        (r"\vec{v}", "v"),
        (r"\mathbb{R}", "R"),
        ("x²", "x2"),
        ("2½", "21/2"),
        ("10", "10%"),
        ("5 cm", "5 m"),
        ("$5", "€5"),
        ("(1,2)", r"\{1,2\}"),
        ("[1,2]", "(1,2)"),
        ("1,2,3", "3,2,1"),
        ("1,234", "1234"),
        ("100,200", "100200"),
        ("(1,200)", "1200"),
        ("3,5", "35"),
        ("0.333...", "0.333"),
        ("0.1", "0.1000000000000000001"),
        ("12345678901234567", "12345678901234568"),
        ("30^\\circ", "30"),
        ("Yes", "Yes?"),
        (r"\frac{a}{b}c", r"\frac{a}{bc}"),
        ("a*", "a"),
        ("`x`", "x"),
        (r"\lfloor x\rfloor", r"\lceil x\rceil"),
        ("A^c", "Ac"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
        (r"\pm 3", "3"),
        ("x<5", "x>5"),
        (r"\binom{5}{2}", r"\frac{5}{2}"),
        ("1776-07-04", "1776-04-07"),
        ("6:00 AM", "6:00 PM"),
        ("20°C", "20°F"),
        ("2x", "2"),
        (r"\begin{pmatrix}1 & 23\end{pmatrix}", r"\begin{pmatrix}12 & 3\end{pmatrix}"),
        ("C++", "C"),
        (r"\frac{1}{2}x", r"\frac{1}{2x}"),
        ("一百二", "一百零二"),
        ("一百二", "120"),
        ("一二", "12"),
        ("百分之五", "0.05"),
        ("5元", "¥5"),
        ("R$5", "$5"),
        ("5 min", "5 m"),
        ("1 000,5", "1,0005"),
        ("a-b", "a b"),
    ],
)
def test_different_answers_have_two_forms(a: str, b: str) -> None:
    assert normalise(a) != normalise(b)


@pytest.mark.parametrize(
    "value", ["1/0", "1e999", "1e-999", "e5", "-", "1,2", "9" * 5000, "1" + "0" * 20, "$", "", "."]
)
def test_odd_numbers_stay_apart_and_raise_nothing(value: str) -> None:
    once = normalise(value)
    assert normalise(once) == once
    assert once == value or value in ("$", ".")


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


async def test_a_candidate_that_was_cut_while_it_thought_is_truncated_and_does_not_vote() -> None:
    model = ScriptedModel(["<think>The answer is 41", "<think>The answer is 41", r"<think>41?</think>\boxed{42.0}"])
    result = await solve("q", model=model, strategy=SelfConsistency(n=3), seed=1)
    assert (result.answer, result.answer_key) == ("42.0", "42")
    assert sorted(c.truncated for c in result.candidates) == [False, True, True]


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("La respuesta no es 41.", None),
        ("La risposta non è 41, ma 42.", None),
        ("A resposta não é B.", None),
        ("Câu trả lời không phải là 41.", None),
        ("La respuesta no es 41. La respuesta es 42.", "42"),
        ("答案不是B。我们再看一遍，答案是C。", "C"),
        ("The answer, not surprisingly, is 42.", "42"),
    ],
)
def test_an_answer_that_is_denied_is_none_in_any_language(text: str, raw: str | None) -> None:
    found = extract(text)
    assert (None if found is None else found.raw) == raw
    for denied in ("答案不是B，而是C", "答案不是41"):
        assert extract(denied) not in ("B", "41")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Answer: 12:30", "12:30"),
        ("The answer is 12:30.", "12:30"),
        ("The answer is 3:2.", "3:2"),
        ("Antwort: 3:2", "3:2"),
        ("**Answer:** 1:2:3", "1:2:3"),
        ("The answer is as follows: 42", "42"),
        ("The correct answer to question 2: 42", "42"),
        ("Answer: > 5", ">5"),
        ("Answer:\n> 5", "5"),
        ("Answer: 10 per cent", "10%"),
        ("Réponse : 10 pour cent", "10%"),
        ("Antwort: 10 Prozent", "10%"),
    ],
)
def test_signs_inside_an_answer_belong_to_it(text: str, key: str) -> None:
    assert extract(text) == key


def test_short_texts_are_remembered_without_what_they_are_the_texts_of() -> None:
    read: list[str] = []

    def key(text: str) -> str:
        read.append(text)
        return text.upper()

    recall = remembered(key)
    native = Text.of("so", object())
    assert [recall(native), recall("so")] == ["SO", "SO"]
    assert read == ["so"] and type(read[0]) is str
    assert recall("x" * 1_000) == recall("x" * 1_000) == "X" * 1_000
    assert len(read) == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Answer: - 5", "-5"),
        ("Answer:\n- 5", "5"),
        ("The answer is A-.", "A-"),
        ("The answer is C#.", "C#"),
        ("The answer is Cl-.", "Cl-"),
        ("Answer: B - because", "B"),
        ("The answer is 0,500.", "0,500"),
        ("The answer is 1,500.", "1500"),
        ("Réponse : 120 = 5!", "120=5!"),
        ("The answer is option b.", "B"),
        ("因此答案为 B 选项", "B"),
        ("答案是一百二十。", "120"),
        ("پاسخ نهایی ۳٫۵ است.", "3.5"),
        ("The answer is probably 42, but I'm not sure.", "42"),
        ("It might be 42.", "42"),
        ("So x = 5.", "x=5"),
        ("Answer: ```42```", "42"),
        ("```\n42\n```", "42"),
        ("Да.", "да"),
        ("Ich weiß es nicht.", None),
    ],
)
def test_what_is_read_of_a_sentence(text: str, key: str | None) -> None:
    assert extract(text) == key


@pytest.mark.parametrize("text", ["Answer:", "**Answer:**", "Final Answer:\n", "答案："])
def test_a_marker_with_nothing_behind_it_is_no_answer(text: str) -> None:
    assert extract(text) is None
