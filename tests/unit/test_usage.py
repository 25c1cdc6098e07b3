from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tts_plugins._calls.prompt_bound import PromptBound
from tts_plugins._internal.token_usage import Trust, measure, pricing
from tts_plugins.errors import ConfigurationError
from tts_plugins.models import OpenAICompatibleModel
from tts_plugins.types import Usage

PRICE = (1.0, 10.0)


def priced(prompt: int, completion: int) -> float:
    return (prompt * PRICE[0] + completion * PRICE[1]) / 1e6


def report(prompt: Any, completion: Any) -> SimpleNamespace:
    return SimpleNamespace(prompt_tokens=prompt, completion_tokens=completion)


def of(
    reported: Any,
    texts: list[str],
    truncated: list[bool] | None = None,
    *,
    prompt_bound: int = 100,
    max_tokens: int | None = 50,
    hidden: bool = False,
    price: Any = priced,
    trust: Trust | None = None,
) -> Usage:
    cut = truncated or [False] * len(texts)
    return measure(
        reported, texts, cut, prompt_bound=prompt_bound, max_tokens=max_tokens, hidden=hidden, price=price, trust=trust
    )


def test_a_plausible_report_is_taken_as_it_is() -> None:
    assert of(report(12, 7), ["twenty-four bytes of text"]) == Usage(
        calls=1, requests=1, prompt_tokens=12, completion_tokens=7, usd=priced(12, 7)
    )
    assert of(report(12.0, 7.0), ["twenty-four bytes of text"]).exact


@pytest.mark.parametrize(
    ("total", "thought", "completion"),
    [
        (530, 492, 493),
        (530, None, 493),
        (38, None, 1),
        (12, None, 1),
        ("530", None, 493),
        ("many", None, 1),
        (-3, None, 1),
    ],
)
def test_thoughts_that_only_the_total_counts_are_charged(total: Any, thought: int | None, completion: int) -> None:
    details = None if thought is None else SimpleNamespace(reasoning_tokens=thought)
    said = SimpleNamespace(prompt_tokens=37, completion_tokens=1, total_tokens=total, completion_tokens_details=details)
    usage = of(said, ["4"], max_tokens=1000)
    assert usage.prompt_tokens == 37 and usage.completion_tokens == completion and usage.exact


GARBAGE: list[Any] = [
    None, {}, "usage", report(None, None), report(-5, -7), report(math.inf, math.inf), report(math.nan, math.nan),
    report("12.5", "7 tokens"), report(True, True), report(10**12, 10**12), report(1.5, 1.5), report([1], {}),
    report(0, None),
]  # fmt: skip


@pytest.mark.parametrize("reported", GARBAGE)
def test_garbage_is_charged_at_the_bound(reported: Any) -> None:
    usage = of(reported, ["hello", "x" * 200])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (100, 7 + 50, False)
    assert usage.usd == priced(100, 57)


def test_half_a_report_is_half_a_bound() -> None:
    usage = of(report(12, None), ["hello"])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (12, 7, False)
    usage = of(report(None, 3), ["hello"])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (100, 3, False)


def test_the_first_choice_s_usage_is_not_that_of_all() -> None:
    usage = of(report(12, 10), ["w" * 40] * 8)
    assert (usage.completion_tokens, usage.exact) == (8 * 42, False)


def test_a_count_that_one_choice_may_have_is_not_taken_for_that_of_all() -> None:
    """Ten tokens for two texts of 24 bytes: 4.8 bytes a token if it is of both, 2.4 if it is of the first alone."""
    trust = Trust()
    usage = of(report(12, 10), ["w" * 24] * 2, trust=trust)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.exact) == (12, 2 * 26, False)
    # 27 are more than either can have: the server counts both, now and later.
    assert of(report(12, 27), ["w" * 24] * 2, trust=trust).completion_tokens == 27
    assert of(report(12, 10), ["w" * 24] * 2, trust=trust).exact


def test_more_than_the_limit_of_one_choice_is_a_count_of_all() -> None:
    assert of(report(12, 51), ["w" * 150] * 2).exact
    assert not of(report(12, 50), ["w" * 150] * 2).exact


def test_a_sum_of_what_each_choice_said_needs_no_proof() -> None:
    each = SimpleNamespace(prompt_tokens=12, completion_tokens=10, every_choice=True)
    assert of(each, ["w" * 24] * 2).exact


def test_tokens_that_nobody_shows_prove_nothing() -> None:
    """A first choice that thought unseen: its 40 tokens are more than both texts have."""
    usage = of(report(12, 40), ["w" * 8] * 2)
    assert (usage.completion_tokens, usage.exact) == (100, False)
    assert of(report(12, 40), ["w" * 8] * 2, max_tokens=None).completion_tokens == 80
    figures = SimpleNamespace(
        prompt_tokens=12, completion_tokens=40, completion_tokens_details=SimpleNamespace(reasoning_tokens=32)
    )
    assert not of(figures, ["w" * 8] * 2).exact


@pytest.mark.parametrize(
    ("figures", "counts", "proven"),
    [(120, [60, 60], True), (60, [60, 60], False), (12, [10, 2], False), (100, [99, 1], False), (500, [60, 60], False)],
)
def test_the_server_s_tokeniser_tells_one_choice_from_all(figures: int, counts: list[int], proven: bool) -> None:
    trust = Trust()
    trust.saw_counts(figures, counts)
    assert trust.proven is proven


def test_no_tokens_for_some_text_is_not_believed() -> None:
    assert of(report(12, 0), ["hello"]).completion_tokens == 7
    assert of(report(12, 0), [""]).completion_tokens == 0


def test_what_contradicts_the_limit_is_not_believed() -> None:
    assert of(report(12, 99), ["x" * 60]).completion_tokens == 62  # more than the text can have
    assert of(report(12, 99), ["x" * 150] * 2, [True, True]).completion_tokens == 100  # two that were cut have more
    assert of(report(12, 50), ["x" * 150], [True]).exact


def test_a_server_that_goes_past_the_limit_is_charged_for_what_it_made() -> None:
    """Regression: 500 tokens of text, honestly reported, were charged at the limit of 50."""
    trust, text = Trust(), "word " * 500
    usage = of(report(12, 500), [text], trust=trust)
    assert (usage.completion_tokens, usage.exact) == (500, True)
    assert trust.limit(50) == 500 and trust.limit(900) == 900 and trust.limit(None) is None
    assert of(report(12, 1500), [text] * 3).completion_tokens == 3 * 2502  # it may be one's, for all that is known
    assert of(report(12, 2600), [text] * 3).exact  # no text has so many bytes
    each = SimpleNamespace(prompt_tokens=12, completion_tokens=1500, every_choice=True)
    assert of(each, [text] * 3).completion_tokens == 1500


def test_thought_past_the_limit_is_charged_where_the_server_tells_of_it() -> None:
    thought = SimpleNamespace(reasoning_tokens=490)
    figures = SimpleNamespace(prompt_tokens=12, completion_tokens=495, completion_tokens_details=thought)
    assert of(figures, ["yes"]).completion_tokens == 495
    assert of(report(12, 495), ["yes"], hidden=True).completion_tokens == 495


def test_a_text_too_long_for_the_limit_is_charged_by_its_bytes() -> None:
    text, trust = "word " * 500, Trust()
    for reported in (None, report(12, 50), report(12, None)):
        usage = of(reported, [text])
        assert (usage.completion_tokens, usage.exact) == (2502, False)
    of(None, [text], trust=trust)
    # From then on the limit bounds nothing: neither a text, nor what is unseen of it.
    assert of(None, ["x" * 60], trust=trust).completion_tokens == 62
    assert of(None, [""], [True], trust=trust).completion_tokens == 2502
    # One choice that went past, of eight: its count is too small to be that of all, and above the limit of one.
    assert of(report(12, 75), ["x" * 300] * 8).completion_tokens == 8 * 302


def test_hidden_and_cut_choices_are_charged_whole() -> None:
    assert of(None, ["a", ""], [True, False]).completion_tokens == 50 + 2
    assert of(None, ["a", ""], hidden=True).completion_tokens == 100
    assert of(None, ["hello"], max_tokens=None).completion_tokens == 7


def test_an_unknown_price_stays_unknown() -> None:
    assert of(report(1, 1), ["a"], price=None).usd is None
    assert of(report(1, 1), ["a"], price=lambda p, c: None).usd is None


def test_odd_texts_have_a_size() -> None:
    assert of(None, ["\ud800", "é"]).completion_tokens == (1 + 2) + (2 + 2)


# A tokeniser as any may be: it cuts a text into runs of bytes, and an end of turn that may be counted or not.
cuts = st.lists(st.integers(1, 6), min_size=1, max_size=12)
choices = st.lists(st.tuples(cuts, st.booleans()), min_size=1, max_size=6)


@settings(max_examples=200)
@given(
    choices, st.sampled_from(["truth", "garbage", "nothing", "missing", "prompt only"]), st.integers(1, 90), st.data()
)
def test_never_undercounts_a_server_that_says_the_truth_or_nothing(
    said: list[tuple[list[int], bool]], kind: str, prompt: int, data: Any
) -> None:
    tokens = [len(runs) + ends for runs, ends in said]
    texts = ["x" * sum(runs) for runs, _ in said]
    limit = data.draw(st.none() | st.integers(max(tokens), 40))
    cut = [limit is not None and t == limit and data.draw(st.booleans()) for t in tokens]
    reported = {
        "truth": report(prompt, sum(tokens)), "garbage": data.draw(st.sampled_from(GARBAGE)), "nothing": None,
        "missing": SimpleNamespace(), "prompt only": report(prompt, None),
    }[kind]  # fmt: skip
    usage = of(reported, texts, cut, max_tokens=limit)
    assert usage.completion_tokens >= sum(tokens) and usage.prompt_tokens >= prompt
    assert usage.calls == len(said) and usage.usd == priced(usage.prompt_tokens, usage.completion_tokens)
    proven = len(said) == 1 or sum(tokens) > min(max(map(len, texts)) + 2, limit or 99)
    assert usage.exact == (kind == "truth" and proven)
    assert not usage.exact or usage.completion_tokens == sum(tokens)
    if limit is not None:
        assert usage.completion_tokens <= limit * len(said)


@settings(max_examples=200)
@given(choices, st.data())
def test_never_undercounts_a_server_that_reports_one_choice_only(said: list[Any], data: Any) -> None:
    tokens = [len(runs) + ends for runs, ends in said]
    texts = ["x" * sum(runs) for runs, _ in said]
    assume(len(said) > 1)
    limit = data.draw(st.none() | st.integers(max(tokens), 40))
    usage = of(report(9, data.draw(st.sampled_from(tokens))), texts, max_tokens=limit)
    assert usage.completion_tokens >= sum(tokens) and not usage.exact


@settings(max_examples=200)
@given(choices, st.data())
def test_never_undercounts_an_honest_server_that_keeps_no_limit(said: list[Any], data: Any) -> None:
    tokens = [len(runs) + ends for runs, ends in said]
    texts = ["x" * sum(runs) for runs, _ in said]
    limit, trust = data.draw(st.integers(1, max(max(tokens), 1))), Trust()
    usage = of(report(9, sum(tokens)), texts, max_tokens=limit, trust=trust)
    assert usage.completion_tokens >= sum(tokens)
    # The same once more fits into what is then reserved for it.
    bound = trust.limit(limit)
    assert bound is not None and sum(tokens) <= bound * len(said)


# PromptBound


@settings(max_examples=200)
@given(st.text(), st.integers(1, 5))
def test_a_prompt_is_never_above_its_bound(text: str, messages: int) -> None:
    prompt = {"messages": [{"role": "user", "content": text}] * messages}
    # At worst a token for each byte, and a template around each message.
    assert PromptBound().of(prompt) >= messages * (len(text.encode("utf-8", "replace")) + 16)


def test_a_prompt_that_was_counted_is_known_and_the_largest_count_binds() -> None:
    bounds, prompt = PromptBound(), {"messages": [{"role": "user", "content": "a" * 400}]}
    before = bounds.of(prompt)
    bounds.saw(prompt, 90)
    bounds.saw(prompt, 80)  # a cache on the server may hide some
    assert bounds.of(prompt) == 90 < before
    assert bounds.of({"messages": [{"role": "user", "content": "a" * 401}]}) > 400
    assert bounds.of({**prompt, "tools": [{"type": "function"}]}) > 400


def said(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **fields}


def test_what_a_template_adds_is_learnt_for_prompts_of_the_same_shape() -> None:
    bounds, fresh = PromptBound(), PromptBound()
    bounds.saw(said("a" * 40), 19)  # 10 of the text, say, and 9 of the template
    assert bounds.of(said("b" * 40)) <= 40 + 19 + 16 < fresh.of(said("b" * 40))
    bounds.saw(said("hi"), 10)
    assert bounds.of(said("b" * 40)) <= 40 + 10 + 16 and bounds.of(said("ho")) <= 2 + 10 + 16
    bounds.saw(said("x" * 4000), 1009)  # a long one tells nothing of the template
    assert bounds.of(said("ho")) <= 2 + 10 + 16
    other = [said("ho", tools=[{"type": "function"}]), {"messages": [{"role": "system", "content": "ho"}]}]
    assert [bounds.of(p) for p in other] == [fresh.of(p) for p in other]


def test_a_count_above_its_bound_raises_it_at_once() -> None:
    bounds = PromptBound()
    bounds.saw(said("hi"), 3)  # its cache hid the template
    assert bounds.of(said("ho")) < 60
    bounds.saw(said("you"), 300)
    assert bounds.of(said("ho")) >= 2 + 297 and bounds.of(said("z" * 50)) >= 50 + 297


@given(
    st.lists(st.tuples(st.text(max_size=60), st.integers(1, 4)), min_size=1, max_size=12),
    st.integers(0, 80), st.integers(0, 12),
)  # fmt: skip
def test_with_a_template_that_varies_within_the_margin_no_bound_is_too_small(
    prompts: list[tuple[str, int]], template: int, noise: int
) -> None:
    bounds = PromptBound()
    for i, (text, bytes_a_token) in enumerate(prompts):
        size = len(text.encode("utf-8", "replace"))
        tokens = template + (i * 7 % (noise + 1)) + -(-size // bytes_a_token)
        assert i == 0 or bounds.of(said(text)) >= tokens or said(text) in [said(t) for t, _ in prompts[:i]]
        bounds.saw(said(text), tokens)


def seen(url: str, kind: str = "image_url") -> dict[str, Any]:
    parts = [{"type": "text", "text": "what is it?"}, {"type": kind, kind: {"url": url}}]
    return {"messages": [{"role": "user", "content": parts}]}


def test_an_image_has_tokens_whatever_its_bytes() -> None:
    """Regression: an address of 30 bytes was taken for at most 30 tokens, and a picture's data for as many as bytes."""
    bounds = PromptBound()
    short, long = seen("https://x.test/a.png"), seen("data:image/png;base64," + "A" * 500_000)
    assert 16_384 <= bounds.of(short) < 17_000 and 16_384 <= bounds.of(long) < 17_000
    bounds.saw(short, 1100)
    assert bounds.of(short) == 1100, "it has been counted"
    assert bounds.of(seen("https://x.test/b.png")) >= 16_384, "and another one may be larger"
    bounds.saw(long, 30_000)
    assert bounds.of(seen("https://x.test/c.png")) >= 30_000
    assert PromptBound().of(seen("A" * 100_000, "input_audio")) >= 100_000
    many = {"messages": seen("a")["messages"] * 3}
    assert PromptBound().of(many) >= 3 * 16_384


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": {"url": "https://x.test/a.png"}},
        {"file": {"file_id": "file-1"}},
        {"type": "Image", "source": {}},
        {"type": "tool_result", "content": [{"type": "text", "text": "é"}, {"type": "image", "data": "A" * 500_000}]},
        {"type": "tool_result", "content": ({"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},)},
    ],
)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_medium_is_found_wherever_a_server_takes_it(part: Any, kind: Any) -> None:
    """Regression: in a tuple, without its type, or in a tool's answer it had the bytes of its address."""
    prompt = {"messages": [{"role": "user", "content": kind([{"type": "text", "text": "what?"}, part])}]}
    assert 16_384 <= PromptBound().of(prompt) < 17_000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}},
        {"role": "user", "content": "what?", "images": ["A" * 500_000]},
        {"role": "assistant", "content": None, "audio": {"id": "audio_1"}},
    ],
)
def test_a_medium_needs_no_list_of_parts(message: dict[str, Any]) -> None:
    """Regression: the only part of a message, and what was said aloud, had the bytes of its number or address."""
    assert 16_384 <= PromptBound().of({"messages": [message]}) < 17_000
    assert PromptBound().of({"messages": [{"role": "assistant", "content": "x", "audio": None}]}) < 200


def test_a_large_image_raises_the_bound_of_images_alone() -> None:
    """Regression: one of 30,000 tokens had every prompt of the model reserve 14,000 more."""
    bounds, text = PromptBound(), {"messages": [{"role": "user", "content": "what?"}]}
    part = {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}
    before = bounds.of(text)
    bounds.saw({"messages": [{"role": "user", "content": [part, part]}]}, 60_000)
    assert bounds.of(text) == before
    other = {"type": "image_url", "image_url": {"url": "https://x.test/b.png"}}
    for many in (1, 2, 3):
        assert many * 29_800 <= bounds.of({"messages": [{"role": "user", "content": [other] * many}]}) < many * 30_200
    bounds.saw(text, before + 100)
    assert bounds.of({"messages": [{"role": "user", "content": "why?"}]}) >= before + 100


def test_parts_that_are_texts_are_bounded_by_their_bytes() -> None:
    parts = [{"type": "text", "text": "what is it?"}, {"type": "text", "text": "x" * 100}]
    assert 111 <= PromptBound().of({"messages": [{"role": "user", "content": parts}]}) < 400


def test_old_prompts_are_forgotten() -> None:
    bounds = PromptBound(size=2)
    for name in "abc":
        bounds.saw({"messages": [name]}, 1)
    assert bounds.of({"messages": ["a"]}) > 1 and bounds.of({"messages": ["c"]}) == 1


def test_odd_prompts_have_a_bound() -> None:
    assert PromptBound().of({"messages": [{"role": "user", "content": object()}]}) > 64
    assert PromptBound().of("text") > 64 and PromptBound().of("\ud800") > 64


# Prices


def test_the_published_prices_are_loaded_off_the_loop() -> None:
    """Regression: most of a second in which the loop could keep no deadline."""
    pytest.importorskip("genai_prices")
    code = """if True:
        import asyncio, sys, threading
        from tts_plugins import Problem
        from tts_plugins.models import OpenAICompatibleModel

        on = set()

        def hook(name, args):
            if name == "import" and args[0] == "genai_prices":
                on.add(threading.get_ident())

        sys.addaudithook(hook)

        async def main():
            model = OpenAICompatibleModel("gpt-4o-mini", api_key="-", max_tokens=10)
            assert not on, "construction is quick"
            assert (await model.bound(Problem("q"))).usd > 0

        asyncio.run(main())
        assert on and threading.get_ident() not in on, on
    """
    ended = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("price", [(math.inf, 1.0), (math.nan, 1.0), (1.0, -1.0), (1e300, 1.0), (1.0,), 3.0])
def test_a_price_that_no_account_can_add_up_is_refused(price: Any) -> None:
    """Regression: an infinite price was an OverflowError in the account."""
    with pytest.raises(ConfigurationError, match=r"price=.* must be two prices"):
        pricing(price, "any", None)
    with pytest.raises(ConfigurationError, match=r"OpenAICompatibleModel: price=.* must be two prices"):
        OpenAICompatibleModel("m", base_url="http://127.0.0.1:1/v1", price=price)


def test_prices() -> None:
    given_price = pricing(PRICE, "any", None)
    assert given_price is not None and given_price(10**6, 10**5) == 2.0
    assert pricing((0.0, 0.0), "any", None) is not None
    published = pricing(None, "gpt-4o-mini", None)
    assert published is not None and (cost := published(1000, 1000)) is not None and 0 < cost < 1
    assert pricing(None, "no-such-model-of-mine", None) is None
    assert pricing(None, "gpt-4o-mini", "http://127.0.0.1:8000/v1") is None
