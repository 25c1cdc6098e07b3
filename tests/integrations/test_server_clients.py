"""The clients that people have, against `tts-plugins serve` itself: only the base URL is changed."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client_transcripts import COMMANDS, KEPT, NODE_MODULES, answer, command_serving, run, script_of
from tts_plugins.testing.loopback import LoopbackServer


@pytest.fixture(scope="module")
def upstream() -> Iterator[LoopbackServer]:
    with LoopbackServer(reply=answer, indexing="arrival") as server:
        yield server


@pytest.fixture(scope="module")
def base_url(upstream: LoopbackServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with command_serving(upstream.base_url, tmp_path_factory.mktemp("serve")) as url:
        yield url


ASK: dict[str, Any] = {"model": "vote/loopback", "messages": [{"role": "user", "content": "What is 17 + 25?"}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}


def test_the_openai_client(base_url: str) -> None:
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="-", max_retries=0)
    completion = client.chat.completions.create(**ASK)
    assert completion.choices[0].message.content == "42" and completion.model_extra is not None
    assert completion.model_extra["tts"]["candidates"] == 4
    with_tools = client.chat.completions.create(**ASK, tools=[TOOL])  # type: ignore[call-overload]
    assert with_tools.choices[0].message.tool_calls[0].function.name == "add"
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "42"
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens > 0
    response = client.responses.create(model="vote/loopback", input="What is 17 + 25?")
    assert response.output_text == "42" and response.usage is not None
    with client.responses.stream(model="vote/loopback", input="What is 17 + 25?") as events:
        assert events.get_final_response().output_text == "42"
    tool = {"type": "function", "strict": False, **TOOL["function"]}  # type: ignore[dict-item]
    called = client.responses.create(model="loopback", input="17 + 25?", tools=[tool])  # type: ignore[list-item]
    assert called.output[0].type == "function_call"
    parsed = client.chat.completions.create(**ASK, extra_body={"tts": {"n": 2}}, n=2)
    assert len(parsed.choices) == 2
    assert [m.id for m in client.models.list()] == ["loopback", "vote", "vote/loopback"]
    assert client.completions.create(model="loopback", prompt="x").choices[0].text
    assert client.embeddings.create(model="loopback", input="x").data[0].embedding
    with pytest.raises(openai.NotFoundError, match="vote"):
        client.chat.completions.create(model="vot", messages=ASK["messages"])
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(**ASK, temperature=0)
    with pytest.raises(openai.RateLimitError, match="no room") as caught:
        client.chat.completions.create(**ASK, max_tokens=9, extra_body={"tts": {"budget": {"tokens": 2}}})
    assert caught.value.code == "insufficient_quota"


SCRIPT = """
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "-", maxRetries: 0 });
const ask = { model: "vote/loopback", messages: [{ role: "user", content: "What is 17 + 25?" }] };
const one = await client.chat.completions.create(ask);
let text = "", usage = null;
const options = { ...ask, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(options)) {
  text += chunk.choices[0]?.delta?.content ?? ""; usage = chunk.usage ?? usage;
}
const response = await client.responses.create({ model: "vote/loopback", input: "What is 17 + 25?" });
let streamed = "";
for await (const event of await client.responses.create({ model: "vote/loopback", input: "17 + 25?", stream: true }))
  if (event.type === "response.output_text.delta") streamed += event.delta;
let code = null;
try { await client.chat.completions.create({ ...ask, temperature: 0 }); }
catch (error) { code = `${error.status} ${error.param}`; }
console.log(JSON.stringify({ one: one.choices[0].message.content, tts: one.tts.candidates, text,
  usage: usage.total_tokens,
  response: response.output_text, streamed, code }));
"""


def test_the_openai_client_of_javascript(base_url: str, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None or not (NODE_MODULES / "openai").is_dir():
        pytest.skip("node, or the package openai of npm, is not installed")
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    (tmp_path / "try.mjs").write_text(SCRIPT)
    run = subprocess.run([node, "try.mjs", base_url], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert said.pop("usage") > 0
    assert said == {"one": "42", "tts": 4, "text": "42", "response": "42", "streamed": "42", "code": "400 temperature"}


def test_curl(base_url: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    command = [curl, "-sS", "--max-time", "60", f"{base_url}/chat/completions", "-H", "Content-Type: application/json"]
    run = subprocess.run([*command, "-d", json.dumps(ASK)], capture_output=True, text=True, timeout=90, check=True)
    assert json.loads(run.stdout)["choices"][0]["message"]["content"] == "42"
    run = subprocess.run(
        [*command, "-N", "-d", json.dumps({**ASK, "stream": True})],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert run.stdout.startswith(": tts-plugins\n") and run.stdout.endswith("data: [DONE]\n\n")


def test_chat_openai_of_langchain(base_url: str) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    model = langchain_openai.ChatOpenAI(model="vote/loopback", base_url=base_url, api_key="-", max_retries=0)
    message = model.invoke("What is 17 + 25?")
    assert message.content == "42" and message.usage_metadata["total_tokens"] > 0
    assert "".join(chunk.content for chunk in model.stream("What is 17 + 25?")) == "42"
    called = model.bind_tools([TOOL]).invoke("What is 17 + 25?")
    assert called.tool_calls[0]["args"] == {"a": 17, "b": 25}
    new = langchain_openai.ChatOpenAI(
        model="vote/loopback", base_url=base_url, api_key="-", max_retries=0, use_responses_api=True
    )
    assert new.invoke("What is 17 + 25?").text == "42"


def test_dspy(base_url: str) -> None:
    dspy = pytest.importorskip("dspy")
    lm = dspy.LM("openai/vote/loopback", api_base=base_url, api_key="-", cache=False, num_retries=0)
    with dspy.context(lm=lm):
        assert dspy.Predict("question -> answer")(question="What is 17 + 25?").answer == "42"


def test_the_agents_sdk_with_a_tool(base_url: str) -> None:
    agents = pytest.importorskip("agents")
    from openai import AsyncOpenAI

    seen: list[tuple[int, int]] = []

    @agents.function_tool
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        seen.append((a, b))
        return a + b

    agents.set_tracing_disabled(True)
    client = AsyncOpenAI(base_url=base_url, api_key="-", max_retries=0)

    async def run(model: Any, streamed: bool) -> Any:
        agent = agents.Agent(name="adder", instructions="Use the tool.", model=model, tools=[add])
        if not streamed:
            return (await agents.Runner.run(agent, "17 + 25?")).final_output
        result = agents.Runner.run_streamed(agent, "17 + 25?")
        async for _ in result.stream_events():
            pass
        return result.final_output

    async def all_ways() -> list[Any]:
        ways = (agents.OpenAIResponsesModel, agents.OpenAIChatCompletionsModel)
        made = [way(model="vote/loopback", openai_client=client) for way in ways]
        out = [await run(model, streamed) for model in made for streamed in (False, True)]
        await client.close()
        return out

    import asyncio

    assert asyncio.run(all_ways()) == ["42"] * 4
    assert seen == [(17, 25)] * 4


@pytest.mark.parametrize("name", COMMANDS)
def test_the_transcripts_show_the_scripts_as_they_are(name: str) -> None:
    kept = (KEPT / f"{Path(name).stem}.txt").read_text("utf-8")
    assert kept.endswith(script_of(name)), "run python -m tests.client_transcripts"
    assert "42" in kept.partition("----")[0]


@pytest.mark.parametrize("name", ["curl.sh", "openai_python.py"])
def test_the_clients_scripts_run(name: str, base_url: str, tmp_path: Path) -> None:
    if name == "curl.sh" and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    done = run(name, base_url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "42" in done.stdout and "vote/loopback" in done.stdout
