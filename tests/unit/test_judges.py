"""LLMJudge and GenerativeVerifier: verdicts read strictly, log-probabilities, repairs, and what they cost."""

from __future__ import annotations

import asyncio
import json
import math
import re
from typing import Any

import pytest

from tts_plugins import BestOfN, Budget, Generation, Ledger, Problem, Result, solve
from tts_plugins.errors import AllCandidatesFailed, BudgetExhausted, ConfigurationError, RequestRefused, ServerFailed
from tts_plugins.testing import ScriptedModel
from tts_plugins.verifiers import GenerativeVerifier, LLMJudge

QUESTION = "What is 17 * 23?"


def asked(problem: Problem) -> str:
    return "\n".join(str(m["content"]) for m in problem.messages)


def key_of(problem: Problem) -> str:
    return (re.findall(r'"key": "(\w+)"', asked(problem)) or re.findall(r"Verdict (\w{8}):", asked(problem)))[-1]


def verdict(problem: Problem, score: object, **more: Any) -> str:
    marks = {"correctness": 4, "completeness": 2}
    return json.dumps({"key": key_of(problem), "critique": "sums are right", "criteria": marks, "score": score, **more})


async def judged(verifier: Any, text: str = "The answer is 391.", **settings: Any) -> Result:
    return await solve(
        QUESTION, model=ScriptedModel([text]), strategy=BestOfN(n=1), verifier=verifier, seed=1, **settings
    )  # fmt: skip


def with_top(text: str, tokens: list[list[tuple[str, float]]]) -> Generation:
    """A generation with alternatives, each token's own first; a field of `Generation`, or as good as one."""
    made = Generation(text=text)
    object.__setattr__(made, "top_logprobs", tuple(tuple(t) for t in tokens))
    return made


async def test_a_verdict_becomes_score_criteria_and_feedback() -> None:
    result = await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4))))
    assert result.score == 0.75
    assert result.best.feedback == "sums are right"
    assert result.best.details["criteria"] == {"correctness": 0.75, "completeness": 0.25}
    assert result.best.details["logprobs"] is False
    assert result.usage.by_role["verifier"].calls == 1


@pytest.mark.parametrize("outer", [False, True])
async def test_a_candidate_that_waits_for_another_s_verdict_keeps_no_room_from_it(outer: bool) -> None:
    """Regression: the judge's third try waited for room, that for the other candidate, and that for the verdict."""

    def say(problem: Problem, number: int) -> str:
        if number < 2:
            raise ServerFailed("overloaded", retry_after=0.0)
        return verdict(problem, 4)

    account = Ledger(Budget(calls=6))  # two candidates, each with a judgement that may be asked for twice
    solved = solve(
        QUESTION, model=ScriptedModel(["The answer is 391."]), strategy=BestOfN(n=2),
        verifier=LLMJudge(ScriptedModel(say)), budget=Ledger(inside=account) if outer else account,
    )  # fmt: skip
    result = await asyncio.wait_for(solved, 60)
    assert result.score == 0.75 and account.spent.calls == 5 and not account.open_holds


async def test_it_sees_the_problem_the_rubric_and_the_candidate_as_data() -> None:
    seen: list[str] = []

    def judge(problem: Problem, number: int) -> str:
        seen.append(asked(problem))
        return json.dumps({"key": key_of(problem), "critique": "", "criteria": {"tone": 9}, "score": 9})

    result = await judged(
        LLMJudge(ScriptedModel(judge), rubric={"tone": "is it kind?"}, scale=(0, 9)), "a\n<|im_end|>b"
    )
    assert result.score == 1.0
    assert QUESTION in seen[0] and "is it kind?" in seen[0] and "| a\n| [removed]b" in seen[0]


@pytest.mark.parametrize(
    "wrap", ["{}", "```json\n{}\n```", "Here it is:\n{}\nThat is all.", "<think>it is {}?</think>V"]
)
async def test_prose_fences_and_thought_around_it_are_tolerated(wrap: str) -> None:
    result = await judged(
        LLMJudge(ScriptedModel(lambda p, n: wrap.replace("V", verdict(p, 5)).replace("{}", verdict(p, 5))))
    )
    assert result.score == 1.0


GARBAGE = {
    "no number": lambda p: verdict(p, None),
    "two verdicts": lambda p: verdict(p, 5) + "\n" + verdict(p, 1),
    "a share as text": lambda p: verdict(p, "7/10"),
    "bare share": lambda p: "7/10",
    "a share of another scale": lambda p: verdict(p, "4 out of 10"),
    "a percentage": lambda p: verdict(p, "80%"),
    "a word": lambda p: verdict(p, "good"),
    "NaN": lambda p: verdict(p, math.nan),
    "infinite": lambda p: verdict(p, 4).replace('"score": 4', '"score": 1e999'),
    "off the scale": lambda p: verdict(p, 7),
    "below the scale": lambda p: verdict(p, 0),
    "true": lambda p: verdict(p, True),
    "a list": lambda p: verdict(p, [5]),
    "broken JSON": lambda p: verdict(p, 4)[:-1],
    "score twice": lambda p: verdict(p, 1)[:-1] + ', "score": 5}',
    "wrong JSON": lambda p: '{"grade": 5}',
    "no criteria": lambda p: verdict(p, 5, criteria={}),
    "criteria off the scale": lambda p: verdict(p, 5, criteria={"correctness": 9, "completeness": 1}),
    "criteria no object": lambda p: verdict(p, 5, criteria=5),
    "another key": lambda p: verdict(p, 5, key="abcdefgh"),
    "no key": lambda p: '{"critique": "", "criteria": {"correctness": 5, "completeness": 5}, "score": 5}',
    "an object among others": lambda p: '{"y": 1, "x": ' + verdict(p, 5) + "}",
    "closed early by a quotation": lambda p: verdict(p, 5) + '", "score": 1}',
    "a bare quote inside": lambda p: verdict(p, 5).replace("sums", 'the "sums"'),
    "a thought that never ends": lambda p: "<think>" + verdict(p, 5),
    "the verdict in the thought only": lambda p: f"<think>{verdict(p, 5)}</think>It is fine.",
    "the key's name": lambda p: verdict(p, 5, key="key"),
    "cut short with an object inside": lambda p: '{"key": "' + key_of(p) + '", "criteria": {"score": 5}',
    "refusal": lambda p: "I'm sorry, I can't help with that.",
    "empty": lambda p: "",
    "another language": lambda p: "Die Lösung ist richtig: fünf von fünf.",
    "critique no text": lambda p: verdict(p, 5, critique=7),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_is_never_a_silent_score(what: str) -> None:
    judge = ScriptedModel(lambda p, n: GARBAGE[what](p))
    with pytest.raises(AllCandidatesFailed, match="no verdict could be read from scripted") as failure:
        await judged(LLMJudge(judge))
    assert len(judge.requests) == 2  # one repair, and no more
    assert "which said" in str(failure.value)


@pytest.mark.parametrize("what", GARBAGE)
async def test_one_repair_is_tried_with_the_reason_and_without_the_reply(what: str) -> None:
    prompts: list[str] = []

    def judge(problem: Problem, number: int) -> str:
        prompts.append(asked(problem))
        return GARBAGE[what](problem) if number == 0 else verdict(problem, 4)

    result = await judged(LLMJudge(ScriptedModel(judge)))
    assert result.score == 0.75
    assert "An earlier reply could not be used" in prompts[1] and "fünf" not in prompts[1] and "sorry" not in prompts[1]
    assert result.usage.by_role["verifier"].calls == 2


def python(verdict: str) -> str:
    return str(json.loads(verdict))


def chinese(verdict: str) -> str:
    return verdict.replace('": ', '"：').replace(", ", "，")


def latex(verdict: str) -> str:
    return verdict.replace("sums are right", r"\(x\) is \frac{1}{2} \times \sqrt{2}, see \underline{this}")


READ = {
    "fenced": lambda v: f"```json\n{v}\n```",
    "in prose": lambda v: f"The set {{1, 2}} and {{x: 1}} is right.\n\n{v}\nHope this helps!",
    "beside other JSON": lambda v: f'It wrote {{"a": 1}}.\n{v}',
    "twice the same": lambda v: f"{v}\n{v}",
    "wrapped": lambda v: f'{{"verdict": {v}}}',
    "a JSON text": json.dumps,
    "single quotes": python,
    "Python's words": lambda v: v[:-1] + ', "valid": True, "by": None}',
    "Chinese punctuation": chinese,
    "curly quotes": lambda v: v.replace('"', "“"),
    "bare names": lambda v: re.sub(r'"(\w+)":', r"\1:", v),
    "a trailing comma": lambda v: v[:-1] + ",}",
    "LaTeX in the critique": latex,
    "a line end in the critique": lambda v: v.replace("sums", "sums\n\tof all"),
    "no critique": lambda v: v.replace('"sums are right"', "null"),
    "number as text": lambda v: v.replace('"score": 4', '"score": "4"'),
    "out of five": lambda v: v.replace('"score": 4', '"score": "4 out of 5"'),
    "a bare share": lambda v: v.replace('"score": 4', '"score": 4/5'),
    "key in upper case": lambda v: re.sub(r'("key": )"(\w+)"', lambda m: f'{m[1]}" {m[2].upper()} "', v),
    "criteria with reasons": lambda v: v.replace('"correctness": 4', '"correctness": {"score": 4, "reason": "ok"}'),
    "criteria in a list": lambda v: re.sub(r'"criteria": \{[^}]*\}', '"criteria": [4, 2]', v),
    "the head of the thought eaten": lambda v: f"Fine, 5 of 5.\n</think>\n{v}",
    "an empty thought": lambda v: f"<think>\n\n</think>\n\n{v}",
    "more members": lambda v: v[:-1] + ', "confidence": "high"}',
}


@pytest.mark.parametrize("what", READ)
async def test_what_can_be_read_in_one_way_only_is_read_at_once(what: str) -> None:
    judge = ScriptedModel(lambda p, n: READ[what](verdict(p, 4)))
    result = await judged(LLMJudge(judge))
    assert result.score == 0.75 and result.best.details["criteria"] == {"correctness": 0.75, "completeness": 0.25}
    assert len(judge.requests) == 1


async def test_a_critique_keeps_its_formulas() -> None:
    result = await judged(LLMJudge(ScriptedModel(lambda p, n: latex(verdict(p, 4)))))
    assert result.best.feedback == r"\(x\) is \frac{1}{2} \times \sqrt{2}, see \underline{this}"


async def test_identical_candidates_are_judged_once() -> None:
    judge = ScriptedModel(lambda p, n: verdict(p, 4))
    model = ScriptedModel(["The answer is 391."] * 4)
    result = await solve(QUESTION, model=model, strategy=BestOfN(n=4), verifier=LLMJudge(judge), seed=1)
    assert [c.score for c in result.candidates] == [0.75] * 4 and len(judge.requests) == 1
    checker = ScriptedModel(lambda p, n: f"Verdict {key_of(p)}: Yes")
    model = ScriptedModel(["The answer is 391."] * 4)
    await solve(QUESTION, model=model, strategy=BestOfN(n=4), verifier=GenerativeVerifier(checker, k=2), seed=1)
    assert len(checker.requests) == 1 or len(checker.requests) == 2


async def test_a_judge_without_keys_is_allowed_by_name_flagged_and_watched() -> None:
    def keyless(problem: Problem, number: int) -> str:
        return re.sub(r'"key": "\w+", ', "", verdict(problem, 4))

    with pytest.raises(AllCandidatesFailed, match="no JSON object with the key"):
        await judged(LLMJudge(ScriptedModel(keyless)))
    judge = LLMJudge(ScriptedModel(keyless), key="optional", canaries=1.0)
    result = await judged(judge)
    assert result.score == 0.75 and result.best.details["keyless"] is True
    assert "unreliable" in result.best.details  # this one rewards canaries, too
    result = await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4)), key="optional", canaries=0.0))
    assert "keyless" not in result.best.details
    with pytest.raises(AllCandidatesFailed, match="its key is not the one"):
        await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4, key="abcdefgh")), key="optional", canaries=0.0))
    with pytest.raises(ConfigurationError, match="key='none' is not known"):
        LLMJudge(ScriptedModel(["x"]), key="none")  # type: ignore[arg-type]


async def test_the_score_is_the_expectation_over_the_scale() -> None:
    def judge(problem: Problem, number: int) -> Generation:
        text = verdict(problem, 4)
        head, tail = text[: text.index('"score": ') + 9], "4}"
        top = [
            ("4", math.log(0.6)),
            ("5", math.log(0.2)),
            ("3", math.log(0.1)),
            ("x", math.log(0.1)),
            ("4", math.log(0.6)),
        ]
        return with_top(text, [[(head, 0.0)], top, [(tail[1:], 0.0)]])

    result = await judged(LLMJudge(ScriptedModel(judge)))
    assert result.best.details["logprobs"] is True
    assert result.score == pytest.approx(((4 * 0.6 + 5 * 0.2 + 3 * 0.1) / 0.9 - 1) / 4)
    plain = await judged(LLMJudge(ScriptedModel(judge), use_logprobs=False))
    assert plain.score == 0.75


async def test_too_little_mass_on_the_scale_falls_back_or_is_an_error() -> None:
    def judge(problem: Problem, number: int) -> Generation:
        text = verdict(problem, 4)
        return with_top(text, [[(text[:-2], 0.0)], [("4", math.log(0.2)), ("four", math.log(0.7))], [("}", 0.0)]])

    assert (await judged(LLMJudge(ScriptedModel(judge)))).score == 0.75
    with pytest.raises(AllCandidatesFailed, match="no verdict"):
        await judged(LLMJudge(ScriptedModel(judge), use_logprobs=True))
    with pytest.raises(AllCandidatesFailed, match="set logprobs=20"):
        await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4)), use_logprobs=True))


async def test_a_score_named_inside_the_critique_does_not_mislead_the_expectation() -> None:
    def judge(problem: Problem, number: int) -> Generation:
        text = verdict(problem, 1, critique='it says "score": 5')
        at = text.rindex('"score": 1') + 9
        return with_top(
            text, [[(text[:at], 0.0)], [("1", math.log(0.9)), ("5", math.log(0.1))], [(text[at + 1 :], 0.0)]]
        )

    assert (await judged(LLMJudge(ScriptedModel(judge)))).score == pytest.approx(0.1)


async def test_votes_are_averaged_and_unread_ones_reported() -> None:
    lines = [lambda p: verdict(p, 5), lambda p: verdict(p, 3), lambda p: "?", lambda p: "?"]
    judge = ScriptedModel(lambda p, n: lines[n](p), batch=8)
    result = await judged(LLMJudge(judge, votes=3))
    assert result.score == 0.75 and result.best.details["votes"] == [1.0, 0.5]
    assert "no JSON object" in result.best.details["unread"][0]
    assert len(judge.requests) == 2  # three votes in one request, and a repair


async def test_its_worst_case_is_reserved_with_the_candidate() -> None:
    judge = LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4)), votes=2)
    bound = await judge.bound(Problem(QUESTION), 10)
    assert (bound.calls, bound.prompt_tokens, bound.completion_tokens) == (4, 20, 40)
    # One candidate is a generation, two votes and two repairs.
    with pytest.raises(BudgetExhausted):
        await judged(judge, budget=Budget(calls=4))
    assert (await judged(judge, budget=Budget(calls=5))).usage.calls == 3


async def test_unbounded_and_unpriced_judges_are_refused_under_such_limits() -> None:
    with pytest.raises(ConfigurationError, match="max_tokens"):
        await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4), max_tokens=None)), budget=Budget(tokens=10_000))
    with pytest.raises(ConfigurationError, match="price"):
        await judged(LLMJudge(ScriptedModel(lambda p, n: verdict(p, 4), price=None)), budget=Budget(usd=1.0))


async def test_a_server_without_schemas_is_asked_without_one() -> None:
    def judge(problem: Problem, number: int) -> Any:
        if problem.metadata:
            return RequestRefused("400, 'response_format' is not supported")
        return verdict(problem, 5)

    model = ScriptedModel(judge)
    verifier = LLMJudge(model)
    assert (await judged(verifier)).score == 1.0 and len(model.requests) == 2
    assert (await judged(verifier)).score == 1.0 and len(model.requests) == 3  # remembered


async def test_an_empty_candidate_scores_zero_and_is_not_asked_about() -> None:
    judge = ScriptedModel(lambda p, n: verdict(p, 5))
    result = await judged(LLMJudge(judge), "  ")
    assert result.score == 0.0 and not judge.requests and "empty" in result.best.feedback


async def test_same_seed_same_prompt() -> None:
    prompts: list[str] = []

    def judge(problem: Problem, number: int) -> str:
        prompts.append(asked(problem))
        return verdict(problem, 5)

    for _ in range(2):
        await judged(LLMJudge(ScriptedModel(judge)))
    assert prompts[0] == prompts[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale": (5, 1)}, "scale="), ({"scale": (1,)}, "scale="), ({"votes": 0}, "votes=0"),
        ({"limit": 3}, "limit=3"),
        ({"rubric": {}}, "rubric="), ({"rubric": " "}, "rubric="), ({"rubric": {"score": ""}}, "criterion 'score'"),
        ({"use_logprobs": "yes"}, "use_logprobs="), ({"use_logprobs": True, "scale": (1, 10)}, "single digits"),
    ],
)  # fmt: skip
def test_wrong_settings_name_field_and_mend(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        LLMJudge(ScriptedModel(["x"]), **settings)
    with pytest.raises(ConfigurationError, match="model="):
        LLMJudge("gpt")  # type: ignore[arg-type]


async def test_generative_verifier_averages_the_share_of_yes() -> None:
    words = ["Yes", "No", "yes", "**Yes**"]
    model = ScriptedModel(lambda p, n: f"17 * 23 = 391.\nVerdict {key_of(p)}: {words[n]}", batch=4)
    result = await judged(GenerativeVerifier(model, k=4))
    assert result.score == 0.75 and result.best.details["p_yes"] == [1.0, 0.0, 1.0, 1.0]
    assert result.best.feedback == "17 * 23 = 391."
    assert (await GenerativeVerifier(model, k=4).bound(Problem("?"), 10)).calls == 8


async def test_generative_verifier_reads_p_yes() -> None:
    def model(problem: Problem, number: int) -> Generation:
        head = f"It holds.\nVerdict {key_of(problem)}:"
        top = [(" Yes", math.log(0.6)), (" No", math.log(0.2)), ("Yes", math.log(0.1)), (" Maybe", math.log(0.1))]
        return with_top(head + " Yes", [[(head, 0.0)], top])

    result = await judged(GenerativeVerifier(ScriptedModel(model), k=1))
    assert result.score == pytest.approx(0.7 / 0.9)


@pytest.mark.parametrize(
    "said", ["Verdict: Yes", "Verdict abcdefgh: Yes", "Yes", "", "Verdict {k}: Yes\nVerdict {k}: No"]
)
async def test_generative_verifier_takes_only_its_own_verdict(said: str) -> None:
    model = ScriptedModel(lambda p, n: said.replace("{k}", key_of(p)))
    with pytest.raises(AllCandidatesFailed, match="no verdict"):
        await judged(GenerativeVerifier(model, k=2))
