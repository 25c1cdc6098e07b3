"""What users of the OpenAI client type, typed at a scaled one: its errors, settings, usages, streams and copies."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from tts_plugins_openai import result_of, scale

from tests.integrations.test_server_replies import KEY, chat, part, reported, used
from tts_plugins import BestOfN, Budget, Revision, SelfConsistency
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError
from tts_plugins.testing.loopback import RawReply, RawRequest, RawServer, event_stream

ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "How much is it?"}], "max_tokens": 50}


@pytest.fixture
def server() -> Iterator[RawServer]:
    with RawServer(lambda request: RawReply(chat(*["4"] * request.body.get("n", 1)))) as running:
        yield running


@pytest.fixture
def bare(server: RawServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client:
        yield client


def scaled(client: Any, n: int = 2, **settings: Any) -> Any:
    return scale(client, strategy=SelfConsistency(n=n), **settings)


# Errors


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
     (404, openai.NotFoundError), (409, openai.ConflictError), (422, openai.UnprocessableEntityError),
     (429, openai.RateLimitError), (500, openai.InternalServerError), (503, openai.InternalServerError)],
)  # fmt: skip
@pytest.mark.parametrize("sync", [True, False])
async def test_the_clients_own_error_is_raised(
    server: RawServer, status: int, kind: type[Exception], sync: bool
) -> None:
    server.reply = lambda request: RawReply(
        {"error": {"message": f"no, {KEY}", "code": "c1"}}, status=status, headers={"x-request-id": "r7"}
    )
    with pytest.raises(kind) as caught:
        if sync:
            with OpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as client:
                scaled(client).chat.completions.create(**ASKED)
        else:
            async with AsyncOpenAI(base_url=server.base_url, api_key=KEY, max_retries=0) as other:
                await scaled(other).chat.completions.create(**ASKED)
    error: Any = caught.value
    assert type(error) is kind and error.status_code == status and error.code == "c1" and error.request_id == "r7"
    assert error.response.status_code == status and isinstance(error.__cause__, AllCandidatesFailed)
    assert str(status) in error.__notes__[0] and KEY not in reported(error)


@pytest.mark.parametrize(("status", "code"), [(401, "invalid_api_key"), (402, None), (429, "insufficient_quota")])
@pytest.mark.parametrize("after", [0, 1])
def test_a_refused_key_or_used_up_account_ends_the_search_at_once(
    server: RawServer, status: int, code: str | None, after: int
) -> None:
    def reply(request: RawRequest) -> RawReply:
        good = request.number < after
        return RawReply(
            chat("4") if good else {"error": {"message": f"no, {KEY}", "code": code}}, status=200 if good else status
        )

    server.reply = reply
    with OpenAI(base_url=server.base_url, api_key=KEY, max_retries=3) as client:
        wrapped = scale(client, strategy=SelfConsistency(n=12, wave=1))
        if not after:
            with pytest.raises(openai.APIStatusError) as caught:
                wrapped.chat.completions.create(**ASKED)
            assert caught.value.status_code == status and KEY not in reported(caught.value)
        else:
            completion = wrapped.chat.completions.create(**ASKED)
            result = result_of(completion)
            assert completion.choices[0].message.content == "4" and result.stopped == "error"
            assert str(401 if status == 401 else 402) in result.warnings[0] and KEY not in result.warnings[0]
    assert len(server.requests) == after + 1


def test_connections_and_time_outs_are_the_clients_too(server: RawServer, bare: OpenAI) -> None:
    import time

    server.reply = lambda request: (time.sleep(1), RawReply(chat("4")))[1]  # type: ignore[func-returns-value]
    with pytest.raises(openai.APITimeoutError):
        scaled(bare).chat.completions.create(**ASKED, timeout=0.2)
    with (
        OpenAI(base_url="http://127.0.0.1:9/v1", api_key=KEY, max_retries=0) as nobody,
        pytest.raises(openai.APIConnectionError),
    ):
        scaled(nobody).chat.completions.create(**ASKED)


def test_errors_of_different_kinds_share_what_they_share(server: RawServer, bare: OpenAI) -> None:
    server.reply = lambda request: RawReply("no", status=429 if request.number else 500)
    with pytest.raises(openai.APIStatusError):
        scale(bare, strategy=SelfConsistency(n=2, wave=1)).chat.completions.create(**ASKED)


# Settings


@pytest.mark.parametrize("sync", [True, False])
async def test_what_is_set_on_a_scaled_client_is_used(server: RawServer, sync: bool) -> None:
    kind = OpenAI if sync else AsyncOpenAI
    client = kind(base_url="http://127.0.0.1:9/v1", api_key="sk-old-0000", max_retries=0)
    wrapped = scaled(client)

    async def ask() -> Any:
        answer = wrapped.chat.completions.create(**ASKED)
        return answer if sync else await answer

    with pytest.raises(openai.APIConnectionError):
        await ask()
    wrapped.base_url = server.base_url
    wrapped.api_key = "sk-new-0001"
    await ask()
    assert server.requests[-1].headers["authorization"] == "Bearer sk-new-0001" and client.api_key == "sk-new-0001"
    client.api_key = "sk-newer-02"  # of the bare one, too
    await ask()
    assert server.requests[-1].headers["authorization"] == "Bearer sk-newer-02"
    wrapped.max_retries = 2
    before, server.reply = (
        len(server.requests),
        lambda request: RawReply("no", status=500, headers={"Retry-After": "0"}),
    )
    with pytest.raises(openai.InternalServerError):
        await ask()
    assert len(server.requests) - before == 3
    wrapped.timeout, wrapped.organization = 7.5, "org"
    assert client.timeout == 7.5 and client.organization == "org"
    closing: Any = client.close()
    await closing if not sync else None


def test_both_names_of_the_limit_are_sent_and_the_larger_is_reserved(server: RawServer, bare: OpenAI) -> None:
    completion = scaled(bare, budget=Budget(tokens=600)).chat.completions.create(**ASKED, max_completion_tokens=90)
    assert (server.bodies[0]["max_tokens"], server.bodies[0]["max_completion_tokens"]) == (50, 90)
    assert result_of(completion).candidates
    with pytest.raises(Exception, match=r"budget|Budget"):
        scaled(bare, budget=Budget(tokens=600)).chat.completions.create(**ASKED, max_completion_tokens=900)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_copies_share_the_connections(server: RawServer, bare: OpenAI, how: Any) -> None:
    made = how({"client": scaled(bare)} if how is copy.deepcopy else scaled(bare))
    made = made["client"] if isinstance(made, dict) else made
    assert made.chat.completions.create(**ASKED).choices[0].message.content == "4"
    assert made._target is bare and isinstance(made, OpenAI)


# Usages and streams


def test_details_of_usages_are_summed(server: RawServer, bare: OpenAI) -> None:
    usage = {**used(30, 20), "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": None},
             "completion_tokens_details": {"reasoning_tokens": 5, "new_tokens": 2}}  # fmt: skip
    server.reply = lambda request: RawReply(chat("4", usage=usage))
    usage_of_all = scaled(bare, 3).chat.completions.create(**ASKED).usage
    assert usage_of_all.prompt_tokens_details.cached_tokens == 10 * len(server.requests)
    assert usage_of_all.completion_tokens_details.reasoning_tokens == 5 * len(server.requests)
    assert usage_of_all.completion_tokens_details.new_tokens == 2 * len(server.requests)
    *_, last = scaled(bare).chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    assert last.usage.completion_tokens_details.reasoning_tokens >= 10


ODD: list[dict[str, Any]] = [
    {"created": 1.5}, {"id": None}, {"service_tier": "brand-new"}, {"object": "chat.completion.brand-new"}, {"id": 7},
    {"model": None}, {"system_fingerprint": 3},
]  # fmt: skip
ODD_CHOICES: list[dict[str, Any]] = [
    {"finish_reason": "brand-new"}, {"finish_reason": None},
    {"logprobs": {"content": [{"token": "4", "logprob": -0.1}]}}, {"logprobs": {"content": [{"token": None}]}},
    {"message": {"role": "assistant", "content": [{"type": "text", "text": "4"}]}},
    {"message": {"role": "brand-new", "content": "4"}}, {"message": {"content": "4", "tool_calls": {}}},
    *({"message": {"role": "assistant", "content": None,
                   "tool_calls": [{"id": None, "function": {"name": "f", "arguments": arguments}}]}}
      for arguments in ({"x": 1}, None, 3, [1], "{")),
    {"message": {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": {"x": 1}}}},
]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("whole", "choice"), [*((o, {}) for o in ODD), *(({}, o) for o in ODD_CHOICES)])
def test_values_that_the_types_do_not_know_are_given_on(
    server: RawServer, bare: OpenAI, whole: dict[str, Any], choice: dict[str, Any], stream: bool
) -> None:
    def reply(request: RawRequest) -> RawReply:
        body = {**chat("4"), **whole}
        body["choices"][0].update(choice)
        return RawReply(body)

    server.reply = reply
    answer = scaled(bare).chat.completions.create(**ASKED, stream=stream)
    if not stream:
        own = bare.chat.completions.create(**ASKED).to_dict(warnings=False)
        assert answer.to_dict(warnings=False)["choices"] == own["choices"]
        return
    chunks = list(answer)
    assert all(type(chunk).__name__ == "ChatCompletionChunk" for chunk in chunks)
    said = [c.choices[0].delta for c in chunks]
    assert any(d.content for d in said) or any(d.tool_calls or d.function_call for d in said)


@pytest.mark.parametrize("sync", [True, False])
async def test_a_stream_has_the_response_of_the_chosen_answer(server: RawServer, sync: bool) -> None:
    server.reply = lambda request: RawReply(chat("4"), headers={"x-request-id": f"r{request.number}"})
    if sync:
        with OpenAI(base_url=server.base_url, api_key=KEY) as client:
            stream = scaled(client).chat.completions.create(**ASKED, stream=True)
    else:
        async with AsyncOpenAI(base_url=server.base_url, api_key=KEY) as other:
            stream = await scaled(other).chat.completions.create(**ASKED, stream=True)
    assert stream.response.status_code == 200 and stream.response.headers["x-request-id"].startswith("r")


# The Responses API


def response(text: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "status": "completed",
               "content": [{"type": "output_text", "text": text, "annotations": []}]}  # fmt: skip
    usage = {"input_tokens": 11, "output_tokens": 5, "total_tokens": 16, "input_tokens_details": {"cached_tokens": 3},
             "output_tokens_details": {"reasoning_tokens": 2}}  # fmt: skip
    return {"id": f"resp_{number}", "object": "response", "created_at": 1, "model": "m", "status": "completed",
            "output": [message], "usage": usage, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
            **fields}  # fmt: skip


def call(arguments: str, number: int = 0) -> dict[str, Any]:
    item = {"id": f"fc_{number}", "type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}
    return response("", number, output=[item])


ASK: dict[str, Any] = {"model": "m", "input": "How much is it?"}


def best(client: Any, **settings: Any) -> Any:
    return scale(client, strategy=BestOfN(n=3), verifier=lambda r: len(r.output_text) / 10, **settings)


@pytest.mark.parametrize("sync", [True, False])
async def test_responses_are_searched(server: RawServer, sync: bool) -> None:
    server.reply = lambda request: RawReply(response("4" * (request.number + 1), request.number))
    if sync:
        with OpenAI(base_url=server.base_url, api_key=KEY) as client:
            answer = best(client).responses.create(**ASK, instructions="Be short.", temperature=0.5)
    else:
        async with AsyncOpenAI(base_url=server.base_url, api_key=KEY) as other:
            answer = await best(other).responses.create(**ASK, instructions="Be short.", temperature=0.5)
    assert type(answer).__name__ == "Response" and answer.output_text == "444"
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (33, 15, 48)
    assert answer.usage.input_tokens_details.cached_tokens == 9
    assert answer.usage.output_tokens_details.reasoning_tokens == 6
    assert len(result_of(answer).candidates) == 3 and result_of(answer).usage.exact
    assert server.requests[0].path == "/v1/responses"
    sent = {"model": "m", "input": [{"role": "user", "content": ASK["input"]}]}
    assert server.bodies == [{**sent, "instructions": "Be short.", "temperature": 0.5}] * 3


def test_what_a_response_asks_for_goes_along(server: RawServer, bare: OpenAI) -> None:
    server.reply = lambda request: RawReply(response('{"a": 1}', request.number))
    form = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    items = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
             {"type": "function_call_output", "call_id": "c", "output": "4"}]  # fmt: skip
    wrapped = scaled(bare, budget=Budget(tokens=5000))
    wrapped.responses.create(model="m", input=items, text=form, max_output_tokens=40, extra_body={"x": 1})
    wanted = {"model": "m", "input": items, "text": form, "max_output_tokens": 40, "x": 1}
    assert server.bodies == [wanted, wanted]


def test_a_response_that_is_not_sure_enough_refuses_and_another_model_is_asked(server: RawServer, bare: OpenAI) -> None:
    def reply(request: RawRequest) -> RawReply:
        large = request.body["model"] == "large"
        return RawReply(response("The answer is " + ("9" if large else str(request.number)), request.number))

    server.reply = reply
    answer = scaled(bare, abstain_below=0.9).responses.create(**ASK, max_output_tokens=9)
    part = answer.output[0].content[0]
    assert answer.output_text == "" and part.type == "refusal" and "below 0.9" in part.refusal
    assert answer.usage.total_tokens == 32 and result_of(answer).abstained is not None
    further = scaled(bare, abstain_below=0.9, on_abstain="escalate", escalate="large")
    answer = further.responses.create(**ASK, max_output_tokens=9)
    assert answer.output_text == "The answer is 9" and result_of(answer).escalated
    assert [request.body["model"] for request in server.requests] == ["m", "m", "m", "m", "large"]


def test_tool_calls_of_responses_are_voted_on(server: RawServer, bare: OpenAI) -> None:
    said = ['{"city": "Rome"}', '{"city":  "Paris"}', '{"city": "Paris"}']
    server.reply = lambda request: RawReply(call(said[request.number % 3], request.number))
    tools: Any = [{"type": "function", "name": "f", "parameters": {}, "strict": False}]
    answer = scaled(bare, 3).responses.create(**ASK, tools=tools)
    assert "Paris" in answer.output[0].arguments


@pytest.mark.parametrize("kind", ["text", "tool", "cut"])
def test_a_response_is_streamed_as_the_server_would(server: RawServer, bare: OpenAI, kind: str) -> None:
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    made = {"text": response("one two three"), "tool": call('{"x": 1}'), "cut": response("one tw", **cut)}[kind]
    server.reply = lambda request: RawReply(made)
    stream = scaled(bare).responses.create(**ASK, stream=True)
    events = list(stream)
    assert isinstance(stream, openai.Stream) and stream.response.status_code == 200
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[0].type == "response.created" and events[0].response.status == "in_progress"
    assert events[-1].type == ("response.incomplete" if kind == "cut" else "response.completed")
    assert events[-1].response.usage.total_tokens == 32
    deltas = "".join(e.delta for e in events if e.type.endswith(".delta"))
    assert deltas == {"text": "one two three", "tool": '{"x": 1}', "cut": "one tw"}[kind]
    assert result_of(stream).best.truncated is (kind == "cut")


def test_a_conversation_goes_on_from_the_chosen_response(server: RawServer, bare: OpenAI) -> None:
    server.reply = lambda request: RawReply(response("4", request.number))
    wrapped = scaled(bare, budget=Budget(tokens=3000))
    first = wrapped.responses.create(**ASK, max_output_tokens=40)
    wrapped.responses.create(**ASK, max_output_tokens=40, previous_response_id=first.id)
    assert server.bodies[-1]["previous_response_id"] == first.id and server.bodies.count(server.bodies[-1]) == 2
    wrapped.responses.create(**ASK, max_output_tokens=40, previous_response_id="resp_of_another_process")
    assert any(r.path == "/v1/responses/resp_of_another_process" for r in server.requests), "its size is asked for"
    with pytest.raises(Exception, match=r"budget|Budget|fit"):
        server.reply = lambda request: RawReply(response("4", usage={"total_tokens": 100_000}))
        wrapped.responses.create(**ASK, max_output_tokens=40, previous_response_id="resp_that_is_long")


def test_errors_of_responses_are_the_clients(server: RawServer, bare: OpenAI) -> None:
    server.reply = lambda request: RawReply({"error": {"message": "no"}}, status=429)
    with pytest.raises(openai.RateLimitError):
        scaled(bare).responses.create(**ASK)
    server.reply = lambda request: RawReply(
        response("", error={"code": "server_error", "message": "broke"}, status="failed")
    )
    with pytest.raises(AllCandidatesFailed, match="broke"):
        scaled(bare).responses.create(**ASK)


def test_a_response_can_be_revised(server: RawServer, bare: OpenAI) -> None:
    server.reply = lambda request: RawReply(response("4" * (request.number + 1), request.number))
    client = scale(bare, strategy=Revision(chains=1, rounds=2), verifier=lambda r: len(r.output_text) / 10)
    assert client.responses.create(**ASK).output_text == "44"
    assert [item["role"] for item in server.bodies[1]["input"][-2:]] == ["assistant", "user"]
    assert server.bodies[1]["input"][0] == {"role": "user", "content": "How much is it?"}


@pytest.mark.parametrize("way", ["conversation", "background", "raw", "parse", "stream"])
def test_no_response_goes_unsearched_unseen(server: RawServer, bare: OpenAI, way: str) -> None:
    server.reply = lambda request: RawReply(response("{}"))
    responses = scaled(bare).responses
    with pytest.warns(UserWarning, match="without a search"):
        if way in ("conversation", "background"):
            responses.create(**ASK, **{way: "c" if way == "conversation" else True})
        elif way == "raw":
            assert responses.with_raw_response.create(**ASK).parse().output_text == "{}"
        else:
            getattr(responses, way)
    assert len(server.requests) <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert responses.retrieve("resp_0").id == "resp_0"


def test_wrong_inputs_are_said(server: RawServer, bare: OpenAI) -> None:
    with pytest.raises(ConfigurationError, match="input"):
        scaled(bare).responses.create(model="m", input=5)
    with pytest.raises(TypeError):
        scaled(bare).responses.create(model="m", inputs="x")
    with pytest.raises(ConfigurationError, match="temperature=0"):
        scaled(bare).responses.create(**ASK, temperature=0)
    with pytest.raises(ConfigurationError, match="reserved"):
        scaled(bare).responses.create(**ASK, max_output_tokens=5, extra_body={"max_output_tokens": 500})
    assert server.requests == [] and event_stream(part({})).body
