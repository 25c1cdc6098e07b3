"""`dspy.streamify` over programs and models that search: status messages at once, and the winner's chunks."""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("dspy")
pytest.importorskip("aiohttp")

import anyio
import dspy
from dspy.streaming import StatusMessage, StreamListener, StreamResponse
from tts_plugins_dspy import Refine, Scaled, ScaledLM
from tts_plugins_dspy._streaming import Stream, _said

from tests.dspy_models import aclose, language_model
from tests.imitations import said
from tts_plugins.testing.loopback import LoopbackServer

WORDS = ["the first answer of all", "a second answer to it", "one more answer, the third"]


def reply(body: dict[str, Any], index: int) -> str:
    return said(answer=WORDS[index % 3])


@pytest.fixture
def server() -> Iterator[LoopbackServer]:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    with LoopbackServer(reply=reply, indexing="arrival") as running:
        yield running


class Tooled(dspy.Module):  # type: ignore[misc]
    """Calls a tool, and a model."""

    def __init__(self) -> None:
        super().__init__()
        self.look, self.ask = dspy.Tool(lambda topic: f"about {topic}", name="look"), dspy.Predict("question -> answer")

    def forward(self, question: str) -> Any:
        return self.ask(question=self.look(topic=question))

    async def aforward(self, question: str) -> Any:
        return await self.ask.acall(question=self.look(topic=question))


class Keeping(Tooled):
    """The same, with state: each candidate has a copy of it."""

    def forward(self, question: str) -> Any:
        self.kept = question
        return super().forward(question)

    async def aforward(self, question: str) -> Any:
        self.kept = question
        return await super().aforward(question)


def second(prediction: Any) -> float:
    return float(prediction.answer == WORDS[1])


async def streamed(program: Any, predictor: Any, **options: Any) -> tuple[list[str], str, Any]:
    """The status messages, the chunks of the answer, and the prediction."""
    listeners = [StreamListener(signature_field_name="answer", predict=predictor)]
    stream = dspy.streamify(program, stream_listeners=listeners, **options)
    items = [item async for item in stream(question="it")]
    messages = [item.message for item in items if isinstance(item, StatusMessage)]
    text = "".join(item.chunk for item in items if isinstance(item, StreamResponse))
    assert isinstance(items[-1], dspy.Prediction)
    return messages, text, items[-1]


@pytest.mark.parametrize("kind", [Tooled, Keeping])
@pytest.mark.parametrize("way", ["forward", "aforward"])
async def test_the_programs_messages_come_and_the_winners_chunks(server: LoopbackServer, way: str, kind: Any) -> None:
    lm, program = language_model(server, temperature=1.0), kind()
    with dspy.context(lm=lm):
        scaled = Scaled(program, n=3, verifier=second)
        messages, text, prediction = await streamed(scaled, program.ask, is_async_program=way == "aforward")
    assert prediction.answer == WORDS[1] == text.strip() and server.counts.requests == 3
    assert sum("look" in message for message in messages) == 3, "each candidate calls the tool"
    reported = sorted(m for m in messages if m.startswith("Candidate"))
    assert [m.split(",")[0] for m in reported] == [f"Candidate {i} of 3 is done" for i in (1, 2, 3)]
    assert sorted(m.split(",")[1] for m in reported) == [" score 0.00.", " score 0.00.", " score 1.00."]
    await aclose(lm)


@pytest.mark.parametrize("way", ["forward", "aforward"])
async def test_one_candidate_streams_as_the_bare_program(server: LoopbackServer, way: str) -> None:
    lm, program = language_model(server, temperature=1.0), Tooled()
    with dspy.context(lm=lm):
        one = await streamed(Scaled(program, n=1, verifier=second), program.ask, is_async_program=way == "aforward")
        server.reset()
        bare = await streamed(program, program.ask, is_async_program=way == "aforward")
    assert one[:2] == bare[:2] and one[2].answer == bare[2].answer and one[1].strip() == WORDS[0]
    await aclose(lm)


async def test_a_language_model_that_searches_streams_what_it_chose(server: LoopbackServer) -> None:
    lm, program = language_model(server, temperature=1.0), Tooled()
    with dspy.context(lm=ScaledLM(lm, n=3, verifier=lambda text: float(WORDS[1] in text))):
        _, text, prediction = await streamed(program, program.ask)
    assert text.strip() == WORDS[1] == prediction.answer and server.counts.requests == 3
    await aclose(lm)


async def test_a_search_within_a_search_streams(server: LoopbackServer) -> None:
    lm, program = language_model(server, temperature=1.0), Tooled()
    with dspy.context(lm=lm):
        inner = Scaled(program, n=3, verifier=second)
        _, text, prediction = await streamed(Scaled(inner, n=2, verifier=second), program.ask)
    assert text.strip() == prediction.answer == WORDS[1] and server.counts.requests == 6
    await aclose(lm)


def test_streams_are_read_synchronously_too(server: LoopbackServer) -> None:
    program = dspy.Predict("question -> answer")
    with dspy.context(lm=language_model(server, temperature=1.0)):
        listeners = [StreamListener(signature_field_name="answer")]
        stream = dspy.streamify(
            Scaled(program, n=3, verifier=second), stream_listeners=listeners, async_streaming=False
        )
        items = list(stream(question="it"))
    text = "".join(item.chunk for item in items if isinstance(item, StreamResponse))
    assert text.strip() == WORDS[1] == items[-1].answer


async def test_what_cannot_be_streamed_is_said_once(server: LoopbackServer, caplog: Any) -> None:
    class Blocking(dspy.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = Scaled(dspy.Predict("question -> answer"), n=2, verifier=second)

        async def aforward(self, question: str) -> Any:
            return self.inner(question=question)  # on the loop itself, which can send nothing meanwhile

    _said.clear()
    lm, program = language_model(server, temperature=1.0), Blocking()
    with dspy.context(lm=lm), caplog.at_level(logging.WARNING, "tts_plugins_dspy"):
        stream = dspy.streamify(program, is_async_program=True)
        async with asyncio.timeout(60):
            for _ in range(2):
                assert [type(item) async for item in stream(question="it")][-1] is dspy.Prediction
    assert caplog.text.count("cannot stream") == 1
    await aclose(lm)


async def test_a_reader_that_leaves_early_ends_the_search(server: LoopbackServer, caplog: Any) -> None:
    running: list[str] = []

    class Noted(Tooled):
        def forward(self, question: str) -> Any:
            running.append(question)
            try:
                return super().forward(question)
            finally:
                running.pop()

    server.configure(latency=0.05)
    lm = language_model(server, temperature=1.0)
    with dspy.context(lm=lm):
        stream = dspy.streamify(Scaled(Noted(), n=3, verifier=second))

        async def first_item() -> None:  # DSPy's streams cancel the task that leaves them, so it has one to itself
            async for _ in stream(question="it"):
                break

        async with asyncio.timeout(60):
            await asyncio.wait([asyncio.create_task(first_item())])
            # Threads cannot be stopped; a connection that they open later would stay open.
            while running:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    await aclose(lm)
    assert "MemoryObjectSendStream" not in caplog.text, "what could not be sent is nothing to tell of"


def test_what_comes_after_the_readers_loop_has_ended_is_dropped_without_a_word() -> None:
    loop = asyncio.new_event_loop()
    sending, receiving = anyio.create_memory_object_stream[Any](16)
    stream = Stream(sending, loop, free=True)
    stream.soon("the loop ends before the stream's next reader has its turn")
    loop.call_soon(loop.stop)
    loop.run_forever()
    stream.soon("the loop ends before this has its turn")
    loop.close()
    stream.soon("it is closed")
    stream.wait()
    sending.close()
    receiving.close()
    gc.collect()  # a coroutine that nobody awaited would be a warning, and so an error, here


async def test_a_reader_that_is_behind_gets_all_in_order() -> None:
    sending, receiving = anyio.create_memory_object_stream[Any](2)
    stream, heard = Stream(sending, asyncio.get_running_loop(), free=True), []
    async with sending, receiving, asyncio.timeout(60):
        await asyncio.to_thread(lambda: [stream.soon(i) for i in range(9)])
        await asyncio.sleep(0.05)
        while len(heard) < 9:
            heard.append(await receiving.receive())
        await stream.await_sent()
        stream.soon("and one after it was full")
        await stream.await_sent()
        assert heard == list(range(9)) and await receiving.receive() == "and one after it was full"


class Chained(dspy.Module):  # type: ignore[misc]
    """Two predictors, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.draft, self.ask = dspy.Predict("question -> draft"), dspy.Predict("draft -> answer")

    def forward(self, question: str) -> Any:
        return self.ask(draft=self.draft(question=question).draft)


async def test_several_listeners_hear_the_winner(server: LoopbackServer) -> None:
    drafts = itertools.count()

    def chained(body: dict[str, Any], index: int) -> str:
        asked = str(body["messages"][-1]["content"])
        if "## question" in asked:
            return said(draft=f"the draft is {next(drafts)} words long")
        return said(answer=asked[20:60])

    server.configure(reply=chained)
    lm, program = language_model(server, temperature=1.0), Chained()
    listeners = [StreamListener(signature_field_name=name) for name in ("draft", "answer")]
    with dspy.context(lm=lm):
        scaled = Scaled(program, n=3, verifier=lambda prediction: float(" 1 words" in prediction.answer))
        items = [item async for item in dspy.streamify(scaled, stream_listeners=listeners)(question="it")]
    heard = {
        name: "".join(i.chunk for i in items if isinstance(i, StreamResponse) and i.signature_field_name == name)
        for name in ("draft", "answer")
    }
    assert heard["draft"].strip() == "the draft is 1 words long" and heard["answer"].strip() == items[-1].answer
    await aclose(lm)


async def test_refined_programs_stream_in_other_forms_and_with_other_messages(server: LoopbackServer) -> None:
    class Messages(dspy.streaming.StatusMessageProvider):  # type: ignore[misc]
        def lm_start_status_message(self, instance: Any, inputs: Any) -> str:
            return "asking"

    server.configure(reply=lambda body, index: f"<answer>\n{WORDS[index % 3]}\n</answer>")
    lm = language_model(server, temperature=1.0)
    # Callbacks of its own: before 3.1.3 the first `streamify` leaves its messages in those that all calls share.
    with dspy.context(lm=lm, adapter=dspy.XMLAdapter(), callbacks=[]):
        refine = Refine(dspy.Predict("question -> answer"), N=2, reward_fn=lambda args, pred: second(pred))
        stream = dspy.streamify(
            refine,
            stream_listeners=[StreamListener(signature_field_name="answer")],
            status_message_provider=Messages(),
            include_final_prediction_in_output_stream=False,
        )
        items = [item async for item in stream(question="it")]
    messages = [item.message for item in items if isinstance(item, StatusMessage)]
    assert messages.count("asking") == 2 and len(messages) == 4
    assert "".join(item.chunk for item in items if isinstance(item, StreamResponse)).strip() == WORDS[1]
    await aclose(lm)
