"""Candidates in waves: each is generated, then scored, then handed over as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from tts_plugins._calls.caller import words
from tts_plugins._calls.charging import cause_for, shortage
from tts_plugins.engine._jobs import Job, Jobs
from tts_plugins.engine._scoring import score_together
from tts_plugins.engine._sending import Sending
from tts_plugins.engine._state import SolveState, is_fatal
from tts_plugins.engine._tasks import Failure
from tts_plugins.errors import (
    AllCandidatesFailed,
    BudgetExhausted,
    DeadlineExceeded,
    ModelError,
    SolveCancelled,
    TTSError,
)
from tts_plugins.protocols import Model, Run, SetVerifier, StopRule
from tts_plugins.selection import Ballots, has_content
from tts_plugins.stopping import stops, wave_growth
from tts_plugins.types import Scored

# Candidates of one wave at most: more than any server bears, so that a huge n costs nothing by itself.
_MOST = 4096


class Sampling(Sending):
    """One `sample` or `revise` of a run; `_expansion` has what steps need besides.

    `candidates` hands on what comes into the inbox, and is never blocked by anything but that, where a deadline arrives
    too.
    """

    def __init__(
        self,
        state: SolveState,
        run: Run,
        jobs: Sequence[Job] | Jobs,
        stop: StopRule | None = None,
        wave: int | None = None,
    ) -> None:
        super().__init__(state, run)
        self._jobs, self._stop, self._wave = jobs, stop, wave
        self._arrived = 0
        # Those that say something, for the rule; and all, where they are scored together.
        self._said = None if stop is None else Ballots()
        self._seen: list[Scored] | None = None if self._whole is None else []
        self._failures: Sequence[Failure | BaseException] = ()
        self._refused: BudgetExhausted | None = None

    async def candidates(self) -> AsyncGenerator[Scored, None]:
        """Each candidate as it arrives. When this ends, however it does, nothing is in flight any more."""
        state, inbox, n, launched, size, done = self._state, self._inbox, len(self._jobs), 0, 0, False
        try:
            state.raise_if_halted()
            state.raise_if_fatal(self._asked_model())
            state.inboxes.add(inbox)
            state.go_on()
            while launched < n and self._refused is None and not done:
                size = self._wave_size(n - launched, size)
                jobs = self._jobs[launched : launched + size]
                launched += len(jobs)
                event = state.trace.open("wave", state.root, n=len(jobs), of=n)
                try:
                    await self._begin(jobs, event)
                    for _ in range(len(jobs)):
                        while not inbox:
                            await inbox.filled()
                        arrival = inbox.popleft()
                        if isinstance(arrival, Scored):
                            self._arrived += 1
                            if self._seen is not None:
                                self._seen.append(arrival)
                            if self._whole is None:
                                state.seen.append(arrival)
                                yield arrival
                            done = self._said is not None and self._decided(arrival, self._said, n)
                        elif isinstance(arrival, str):
                            done = True
                        else:
                            done = self._failed(arrival)
                        del arrival  # a failure's traceback may have this frame: it would refer to itself
                        if done:
                            break
                finally:
                    state.trace.close(event)
            await self._stop_sending()
            if self._whole is not None and self._seen:
                for scored in await self._score_set(self._whole, self._seen):
                    yield scored
            if not self._arrived:
                raise self._nothing()
        finally:
            await self.close()

    async def close(self) -> None:
        """Cancel what is in flight, and wait until it is settled."""
        try:
            await self._stop_sending()
        finally:
            for hold in self._kept.values():
                hold.release()
            # Their tracebacks have frames that refer to this: a circle, which would keep all of the solve.
            self._failures, self._refused = (), None

    async def _stop_sending(self) -> None:
        self._closed = True
        self._state.inboxes.discard(self._inbox)
        await self._state.tasks.cancel(self._tasks)

    def _wave_size(self, left: int, before: int) -> int:
        if self._wave is not None:
            return min(self._wave, left)
        if self._stop is None:
            return min(left, _MOST)
        least = self._stop.least(list(self._said or ()), left)
        return min(left, _MOST, max(least, wave_growth(self._stop) * before, 1))

    def _decided(self, arrival: Scored, said: Ballots, n: int) -> bool:
        stop, left = self._stop, n - self._arrived - len(self._failures)
        if has_content(arrival):
            said.append(arrival)
        if left <= 0 or stop is None or not said or not stops(stop, said, left):
            return False
        if self._state.stopped == "complete" or self._refused is not None:
            self._state.stopped = "stop_rule"  # what the budget refused was not needed
        self._state.note("stop", rule=repr(stop), seen=self._arrived, left=left)
        return True

    def _failed(self, arrival: Failure | BaseException) -> bool:
        """Record a failure; return whether it ends the search with the candidates that there are.

        Raises:
            BaseException: the error itself, if it is a defect, or if there is no candidate and can be none.
        """
        error = _error_of(arrival)
        if isinstance(error, BudgetExhausted) and self._state.exhausted(error):
            self._refused = self._refused or error
            return False
        self._note_failures(arrival)
        if (lacking := shortage(error)) is not None:
            self._state.note("shortage", error=lacking)
        fatal = is_fatal(error)
        if fatal and isinstance(error, ModelError):
            self._state.fatal = (*self._state.fatal, (self._asked_model(), error))
        if not isinstance(error, TTSError) or (fatal and not self._arrived):
            try:
                raise error
            finally:
                del error, arrival
        if fatal:
            self._state.failed_for_all(error)
        return fatal

    def _asked_model(self) -> Model:
        return next(iter(self._jobs)).ask.model

    def _note_failures(self, *failures: Failure | BaseException) -> None:
        if not isinstance(self._failures, list):  # most samplings have none, and no list either
            self._failures = []
        self._failures.extend(failures)

    def _first_failure(self) -> BaseException | None:
        return _error_of(self._failures[0]) if self._failures else None

    def _nothing(self) -> BaseException:
        halted, first = self._state.halted, self._first_failure()
        if halted == "cancelled":
            error: TTSError = SolveCancelled("the solve was cancelled before the first candidate was complete")
        elif halted == "deadline":
            error = DeadlineExceeded(
                "the deadline passed before the first candidate was complete"
                + (f"; first failure: {words(first)}" if first else "; give more seconds, or a faster model")
            )
        elif self._refused is not None:
            error = self._refused
            first = first or error.__cause__
        else:
            return self._all_failed()
        error.__cause__ = cause_for(error, first)
        return error

    async def _score_set(self, verifier: SetVerifier, seen: Sequence[Scored]) -> list[Scored]:
        """Score all candidates together. One whose score is invalid fails alone."""
        state, ordered = self._state, sorted(seen, key=lambda c: c.index)
        state.seen += ordered  # without scores, they are what there is if scoring does not come to an end
        hold = state.ledger.join([self._kept[c.id] for c in ordered])
        scored, failures = await score_together(state, self._run, verifier, ordered, hold)
        self._note_failures(*failures)
        self._unscored += len(failures)
        if not scored:
            raise self._all_failed()
        ids = {c.id for c in ordered}
        state.seen[:] = [c for c in state.seen if c.id not in ids] + scored
        return scored

    def _all_failed(self) -> AllCandidatesFailed:
        first, errors = self._first_failure(), [_error_of(each) for each in self._failures]
        error = AllCandidatesFailed(
            f"all {len(errors)} candidates failed; the first because of {words(first) if first else '?'}",
            errors,
            unscored=self._unscored,
            attempts=[each.attempt() for each in self._failures if isinstance(each, Failure)],
        )
        error.__cause__ = first
        return error


def _error_of(failure: Failure | BaseException) -> BaseException:
    return failure.error if isinstance(failure, Failure) else failure
