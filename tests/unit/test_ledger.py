from __future__ import annotations

import threading
from typing import Any

import pytest

from tts_plugins._calls.limiter import Limiter
from tts_plugins._calls.places import Place, Places
from tts_plugins.budget import Amount, Budget, Limits
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.ledger import Hold, Ledger
from tts_plugins.types import Usage

LIMITER = Limiter(Limits())


def tokens(count: int) -> Amount:
    return Amount(0, count, 0)


def used(count: int) -> Usage:
    return Usage(completion_tokens=count)


def account(limit: int = 100, **inside: Any) -> Ledger:
    return Ledger(Budget(tokens=limit), **inside)


def ask(ledger: Ledger, need: int, within: Hold | None = None, at_most: int = 1) -> tuple[list[Any], Any]:
    answers: list[Any] = []
    return answers, ledger.ask(tokens(need), answers.append, within=within, at_most=at_most)


def granted(answers: list[Any]) -> Hold:
    assert len(answers) == 1 and isinstance(answers[0], Hold), answers
    return answers[0]


def refused(answers: list[Any]) -> BudgetExhausted:
    assert len(answers) == 1 and isinstance(answers[0], BudgetExhausted), answers
    return answers[0]


def empty(ledger: Ledger) -> bool:
    return ledger.held == Amount() and ledger.open_holds == 0 and ledger.idle_queue


# One hold


def test_a_hold_is_charged_what_was_used_and_the_rest_comes_back() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(80))
    assert ledger.held == tokens(80) and ledger.left() == {"calls": None, "tokens": 20, "usd": None}
    assert hold.settle(used(30)) == Amount()
    assert ledger.spent == tokens(30) and ledger.left()["tokens"] == 70 and empty(ledger)


def test_a_batch_is_trimmed_to_what_fits() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(30), at_most=8)
    assert (hold.units, hold.size) == (3, tokens(90))


def test_what_does_not_fit_is_refused_in_words_that_say_the_mend() -> None:
    ledger = Ledger(Budget(calls=3, tokens=100, seconds=9))
    ledger.reserve(Amount(1, 60, 0)).settle(used(50))
    ledger.reserve(Amount(1, 20, 0))
    with pytest.raises(BudgetExhausted) as refusal:
        ledger.reserve(Amount(1, 40, 0))
    assert str(refusal.value) == (
        "the budget (calls=3, tokens=100) has no room for a call that may take 1 call, 40 tokens: of it are 0 calls, "
        "50 tokens spent and 1 call, 20 tokens held; raise the limit or lower max_tokens or n"
    )
    with pytest.raises(BudgetExhausted) as small:
        Ledger(Budget(tokens=1000)).reserve(Amount(1, 1153, 0))
    assert str(small.value) == (
        "the budget (tokens=1000) is too small for a single call, which may take 1 call, 1,153 tokens (prompt, "
        "max_tokens and verification); raise the limit or lower max_tokens or n"
    )


def test_what_had_no_bound_overshoots_in_calls_alone() -> None:
    """Regression: without max_tokens, whatever was generated was reported as more than had been reserved."""
    ledger = Ledger(Budget(calls=5))
    over = ledger.reserve(Amount(1, 40, 0)).settle(Usage(calls=3, completion_tokens=500), bounded=False)
    assert over == ledger.overshoot == Amount(2) and ledger.spent == Amount(3, 500)


def test_a_settlement_above_its_hold_is_an_overshoot() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(40))
    assert hold.settle(used(45)) == tokens(5)
    assert ledger.overshoot == tokens(5) and ledger.spent == tokens(45) and empty(ledger)


def test_what_was_drawn_from_a_hold_does_not_cover_its_own_settlement() -> None:
    """Regression: 60 drawn and 100 settled on a hold of 100 made 160 of 100 without an overshoot."""
    ledger = account()
    outer = ledger.reserve(tokens(100))
    ledger.reserve(tokens(60), within=outer).settle(used(60))
    assert outer.settle(used(100)) == tokens(60)
    assert ledger.spent == tokens(160) and ledger.overshoot == tokens(60)


def test_a_hold_is_settled_once_and_released_as_often_as_one_likes() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(40))
    hold.release()
    hold.release()
    assert empty(ledger) and not hold.open
    with pytest.raises(ValueError, match="settled once"):
        hold.settle(used(1))
    assert ledger.spent == Amount() and ledger.usage == Usage()


def test_closing_from_many_threads_counts_once() -> None:
    """Regression: `open` was looked at outside of the lock."""
    for _ in range(200):
        ledger, barrier, settled = account(), threading.Barrier(4), list[int]()
        hold = ledger.reserve(tokens(10))

        def close(
            hold: Hold = hold, barrier: threading.Barrier = barrier, settled: list[int] = settled, i: int = 0
        ) -> None:
            barrier.wait()
            try:
                hold.settle(used(4))
                settled.append(1)
            except ValueError:
                hold.release()

        threads = [threading.Thread(target=close) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert settled == [1] and ledger.spent == tokens(4) and empty(ledger)


def test_money_comes_out_exactly() -> None:
    ledger = Ledger(Budget(usd=0.3))
    unit = Amount.of(usd=0.1)
    hold = ledger.reserve(unit, at_most=9)
    assert hold.units == 3  # 0.1 + 0.1 + 0.1 > 0.3 in floats
    hold.settle(Usage(usd=0.1 + 0.1 + 0.1))
    assert ledger.left()["usd"] == 0.0 and ledger.overshoot == Amount()
    with pytest.raises(BudgetExhausted):
        ledger.reserve(Amount.of(usd=1e-12))


def test_a_million_cheap_tokens_sum_up() -> None:
    ledger = Ledger(Budget(usd=1.0))
    for _ in range(1000):
        ledger.reserve(Amount.of(usd=0.001)).settle(Usage(usd=0.001))
    assert ledger.spent.picousd == 10**12 and ledger.left()["usd"] == 0.0


def test_an_account_without_a_budget_only_counts() -> None:
    ledger = Ledger()
    ledger.reserve(Amount(9, 10**9, 10**15)).settle(Usage(calls=9, usd=None))
    assert ledger.left() == {"calls": None, "tokens": None, "usd": None}
    assert ledger.usage.calls == 9 and ledger.usage.usd is None and ledger.spent == Amount(9, 0, 0)


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigurationError, match="is not a Budget"):
        Ledger(5)  # type: ignore[arg-type]
    one, other = account(), account()
    with pytest.raises(ValueError, match="another ledger"):
        one.reserve(tokens(1), within=other.reserve(tokens(1)))
    with pytest.raises(ValueError, match="at_most=0"):
        one.ask(tokens(1), print, at_most=0)


def test_the_seconds_run_from_the_first_question_and_a_payer_s_bind_too() -> None:
    assert account().deadline(5.0) is None
    shared = Ledger(Budget(seconds=10))
    assert shared.deadline(100.0) == 110.0 and shared.deadline(105.0) == 110.0
    assert Ledger(Budget(calls=1), inside=shared).deadline(106.0) == 110.0
    assert Ledger(Budget(seconds=1), inside=shared).deadline(106.0) == 107.0
    assert Ledger(Budget(seconds=50), inside=shared.reserve(Amount())).deadline(106.0) == 110.0


def test_limits_of_payers_are_limits() -> None:
    child = Ledger(Budget(calls=2), inside=account())
    assert child.limits("calls") and child.limits("tokens") and not child.limits("usd")


def test_usage_is_kept_by_role_at_every_level() -> None:
    root = account()
    child = Ledger(inside=root)
    part = used(7)
    child.reserve(tokens(10)).settle(Usage(completion_tokens=7, by_role={"model": part}))
    assert child.usage == root.usage and root.usage.by_role["model"] == part and root.spent == tokens(7)


# Holds inside holds, ledgers inside ledgers


def test_a_hold_inside_a_hold_takes_no_further_room() -> None:
    ledger = account()
    outer = ledger.reserve(tokens(100))
    inner = ledger.reserve(tokens(60), within=outer)
    assert ledger.held == tokens(100) and outer.amount == tokens(40)
    inner.settle(used(50))
    assert ledger.held == tokens(40) and ledger.spent == tokens(50)
    outer.release()
    assert empty(ledger)


def test_what_is_more_than_the_enclosing_hold_is_taken_from_the_account() -> None:
    ledger = account()
    outer = ledger.reserve(tokens(50))
    ledger.reserve(tokens(80), within=outer)
    assert ledger.held == tokens(80) and outer.amount == Amount()
    with pytest.raises(BudgetExhausted):
        ledger.reserve(tokens(21), within=outer)


def test_an_enclosing_hold_may_close_first() -> None:
    ledger = account()
    outer = ledger.reserve(tokens(100))
    inner = ledger.reserve(tokens(60), within=outer)
    outer.release()
    assert ledger.held == tokens(60)
    fresh = ledger.reserve(tokens(40), within=outer)  # a closed hold covers nothing
    inner.settle(used(60))
    fresh.settle(used(40))
    assert ledger.spent == tokens(100) and empty(ledger)


def test_a_child_ledger_draws_from_the_hold_that_it_is_inside() -> None:
    root = account()
    call = root.reserve(tokens(100))
    child = Ledger(Budget(tokens=90), inside=call)
    inner = child.reserve(tokens(30), at_most=9)
    assert inner.units == 3 and child.root is root
    assert root.held == tokens(100) and child.held == tokens(90) and call.amount == tokens(10)
    inner.settle(used(85))
    assert root.spent == child.spent == tokens(85) and root.held == tokens(10)
    call.release()
    assert empty(root) and empty(child)


def test_three_levels_settle_and_overshoot_everywhere() -> None:
    root = account()
    middle = Ledger(Budget(tokens=90), inside=root)
    outer = middle.reserve(tokens(80))
    leaf = Ledger(Budget(tokens=70), inside=outer)
    first = leaf.reserve(tokens(60))
    second = leaf.reserve(tokens(10), within=first)
    assert [x.held for x in (root, middle, leaf)] == [tokens(80), tokens(80), tokens(60)]
    second.settle(used(15))
    first.release()
    outer.release()
    for ledger in (root, middle, leaf):
        assert ledger.spent == tokens(15) and ledger.overshoot == tokens(5) and empty(ledger)


def test_a_refusal_names_the_account_that_has_no_room() -> None:
    root = account(50)
    child = account(1000, inside=root)
    with pytest.raises(BudgetExhausted, match=r"the budget \(tokens=50\)"):
        child.reserve(tokens(60))


# Waiting


def test_who_waits_is_served_in_order_of_arrival() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(90))
    first, _ = ask(ledger, 80)
    second, _ = ask(ledger, 5)  # would fit, and is not let pass
    assert not first and not second and not ledger.idle_queue
    hold.settle(used(10))
    granted(first).release()
    granted(second).release()
    assert empty(ledger)


def test_a_wait_is_served_at_once_where_there_is_room() -> None:
    answers, _ = ask(account(), 30, at_most=5)
    assert granted(answers).units == 3


def test_a_wait_ends_as_soon_as_nobody_in_flight_can_make_room() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(60))
    answers, _ = ask(ledger, 70)
    assert not answers
    hold.settle(used(40))
    assert "70 tokens" in str(refused(answers)) and empty(ledger)


def test_what_can_never_fit_is_refused_at_once_and_blocks_nobody() -> None:
    """Regression: it waited for all that was in flight, and others waited behind it."""
    ledger = account()
    ledger.reserve(tokens(20)).settle(used(20))
    busy = ledger.reserve(tokens(70))
    refused(ask(ledger, 81)[0])
    granted(ask(ledger, 10)[0]).release()
    busy.release()


def test_what_can_no_longer_fit_is_refused_when_its_turn_comes() -> None:
    ledger = account()
    one, other = ledger.reserve(tokens(50)), ledger.reserve(tokens(50))
    answers, _ = ask(ledger, 80)
    behind, _ = ask(ledger, 10)
    one.settle(used(30))
    refused(answers)
    granted(behind).release()
    other.release()
    assert empty(ledger)


def test_two_that_hold_and_wait_do_not_wait_for_each_other() -> None:
    ledger = account()
    a, b = ledger.reserve(tokens(50)), ledger.reserve(tokens(50))
    first, _ = ask(ledger, 60, within=a)
    assert not first and a.blocked  # b may end
    second, _ = ask(ledger, 60, within=b)
    refused(first)
    assert not second and not a.blocked  # a goes on, without what it asked for, and may end
    a.release()
    granted(second).release()
    b.release()
    assert empty(ledger)


def test_what_an_enclosing_hold_covers_is_served_past_a_queue() -> None:
    """Regression: asking inside a hold made others be refused, though the hold was about to end."""
    ledger = account()
    call = ledger.reserve(tokens(100))
    waiting, _ = ask(ledger, 50)
    inner, _ = ask(ledger, 30, within=call)
    assert not waiting
    granted(inner).settle(used(30))
    call.release()
    granted(waiting).release()
    assert empty(ledger)


def test_what_is_covered_does_not_wait_behind_others_and_what_is_not_does() -> None:
    ledger = account()
    call, busy = ledger.reserve(tokens(20)), ledger.reserve(tokens(70))
    waiting, _ = ask(ledger, 50)
    covered, _ = ask(ledger, 5, within=call)
    granted(covered).release()
    more, _ = ask(ledger, 25, within=call)  # there is room, and somebody came before
    assert not waiting and not more
    busy.release()
    granted(waiting).release()
    granted(more).release()
    call.release()
    assert empty(ledger)


def test_an_overshoot_of_others_takes_nothing_from_a_hold() -> None:
    ledger = account()
    call, other = ledger.reserve(tokens(50)), ledger.reserve(tokens(50))
    other.settle(used(80))
    granted(ask(ledger, 40, within=call)[0]).settle(used(40))
    call.release()
    assert ledger.spent == tokens(120) and ledger.overshoot == tokens(30) and empty(ledger)


def test_two_nested_solves_do_not_wait_for_each_other() -> None:
    root = account()
    a, b = root.reserve(tokens(50)), root.reserve(tokens(50))
    first, _ = ask(Ledger(inside=a), 60)
    assert not first and a.blocked
    second, _ = ask(Ledger(inside=Ledger(inside=b)), 60)
    refused(first)
    a.release()
    granted(second).release()
    b.release()
    assert empty(root)


def test_a_hold_with_two_waits_inside_is_dead_as_soon_as_one_of_them_is() -> None:
    """Regression: when the other wait ended, nobody looked again, and nobody was left to wake them."""
    ledger, places, answers = account(), Places(1), list[Any]()
    call, taken = ledger.reserve(tokens(70)), place()
    assert places.enter_now(taken)
    places.enter(place(call), answers.append)  # this one can end
    waiting, _ = ask(ledger, 50)
    assert not waiting
    inner, _ = ask(ledger, 101 - 20, within=call)  # and this one cannot, unless it passes
    granted(inner).release()
    places.leave(taken)
    places.leave(answers[0])
    call.release()
    granted(waiting).release()
    assert empty(ledger)


def test_parking_a_hold_that_waits_for_a_place_dooms_who_waits_for_it() -> None:
    """Regression: it was blocked already, so that nobody looked whether anything could still end."""
    ledger, places, answers = account(), Places(1), list[Any]()
    taken, call = place(), ledger.reserve(tokens(100))
    assert places.enter_now(taken)
    places.enter(place(call), answers.append)
    waiting, _ = ask(ledger, 50)
    assert not waiting
    call.park()
    refused(waiting)
    call.release()
    places.leave(taken)
    places.leave(answers[0])
    assert empty(ledger) and not places.holders


def test_a_wait_inside_a_hold_passes_rather_than_that_another_is_refused() -> None:
    ledger = account()
    call = ledger.reserve(tokens(60))
    waiting, _ = ask(ledger, 80)
    inner, _ = ask(ledger, 70, within=call)  # 10 more than its hold, and there are 40
    assert not waiting
    granted(inner).settle(used(10))
    call.release()
    granted(waiting).release()
    assert empty(ledger)


def test_a_wait_in_a_nested_ledger_pauses_all_that_encloses_it() -> None:
    root = account()
    call = root.reserve(tokens(60))
    child = account(50, inside=call)
    inner = child.reserve(tokens(50))
    leaf = Ledger(inside=inner)
    answers, ticket = ask(leaf, 60)
    refused(answers)  # above the child's limit
    answers, ticket = ask(root, 70)
    assert not answers and not call.blocked
    nested, _ = ask(leaf, 50)
    granted(nested).release()
    inner.release()
    call.release()
    granted(answers).release()
    ticket.cancel()
    assert empty(root) and empty(child) and empty(leaf)


def test_a_full_child_does_not_hold_up_its_parent() -> None:
    root = account()
    child = account(10, inside=root)
    busy = child.reserve(tokens(10))
    waiting, _ = ask(child, 10)
    granted(ask(root, 50)[0]).release()
    assert not waiting
    busy.release()
    granted(waiting).release()


def test_cancelling_a_wait() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(90))
    first, ticket = ask(ledger, 80)
    second, _ = ask(ledger, 10)
    ticket.cancel()
    ticket.cancel()
    assert not first
    granted(second).release()
    hold.release()
    assert empty(ledger) and not first


def test_cancelling_the_only_wait_in_a_hold_lets_its_hold_count_again() -> None:
    ledger = account()
    a = ledger.reserve(tokens(50))
    b = ledger.reserve(tokens(50))
    inside_a, ticket = ask(ledger, 60, within=a)
    ticket.cancel()
    assert not a.blocked
    inside_b, _ = ask(ledger, 60, within=b)
    assert not inside_b and not inside_a
    a.release()
    granted(inside_b).release()


def place(hold: Hold | None = None, outer: Place | None = None) -> Place:
    return Place(LIMITER, hold, outer)


def test_a_hold_that_waits_for_a_place_counts_only_while_the_place_can_come_free() -> None:
    ledger, places, answers = account(), Places(1), list[Any]()
    other, hold = ledger.reserve(tokens(10)), ledger.reserve(tokens(60))
    taken = place(other)
    assert places.enter_now(taken)
    places.enter(place(hold), answers.append)
    assert hold.blocked and not other.blocked
    waiting, _ = ask(ledger, 50)
    assert not waiting and not answers
    inner, _ = ask(ledger, 45, within=other)  # now the holder of the place waits for the account, and nothing moves
    assert len(answers) == 1 and not waiting and not inner, "a place more is better than a refusal"
    places.leave(answers[0])
    hold.release()
    granted(waiting).release()
    granted(inner).release()
    places.leave(taken)
    other.release()
    assert empty(ledger) and not places.holders


def test_parking_wakes_the_wait_that_it_dooms() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(60))
    answers, _ = ask(ledger, 50)
    hold.park()
    hold.park()
    assert hold.blocked
    refused(answers)
    hold.unpark()
    hold.unpark()
    assert not hold.blocked
    waiting, _ = ask(ledger, 50)
    assert not waiting
    hold.release()
    granted(waiting).release()
    assert empty(ledger)


def test_a_hold_that_closes_while_parked_leaves_nothing() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(60))
    hold.park()
    hold.release()
    hold.park()  # regression: a closed hold kept others waiting for ever
    other = ledger.reserve(tokens(60))
    answers, _ = ask(ledger, 50)
    other.settle(used(60))
    refused(answers)


def test_answers_reach_all_even_if_one_of_them_fails() -> None:
    ledger = account()
    hold = ledger.reserve(tokens(100))

    def broken(answer: object) -> None:
        raise RuntimeError("loop is closed")

    ledger.ask(tokens(50), broken)
    answers, _ = ask(ledger, 50)
    with pytest.raises(RuntimeError, match="closed"):
        hold.release()
    granted(answers).release()
    assert empty(ledger)


def test_waiting_across_threads() -> None:
    ledger, done = account(10), list[str]()

    def work() -> None:
        answered, box = threading.Event(), list[Any]()

        def ready(answer: Any) -> None:
            box.append(answer)
            answered.set()

        ledger.ask(tokens(10), ready)
        assert answered.wait(60)
        box[0].settle(Usage())
        done.append("ok")

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(done) == 32 and empty(ledger)


def test_it_shows_its_limits_and_says_what_it_has() -> None:
    ledger = Ledger(Budget(calls=9))
    assert repr(ledger) == f"Ledger({Budget(calls=9)!r})" and repr(Ledger()) == "Ledger()"
    before = repr(ledger)
    hold = ledger.reserve(Amount(calls=2, tokens=10))
    assert str(ledger) == f"{before}: 0 calls, 0 tokens spent, 2 calls, 10 tokens held"
    hold.settle(Usage(calls=1, completion_tokens=5))
    assert str(ledger) == f"{before}: 1 call, 5 tokens spent" and repr(ledger) == before, "caches use it as a key"
    assert repr(Ledger(inside=ledger)) == f"Ledger(inside={before})"
