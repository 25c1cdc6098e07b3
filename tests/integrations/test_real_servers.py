"""The same promises on three real servers, each where it is installed: llama.cpp, a LiteLLM proxy, transformers serve.

    llama.cpp     `xllamacpp`, with the embedded weights
    LiteLLM       `litellm[proxy]`, whose command is on the PATH or in LITELLM_COMMAND; its answers are mocked
    transformers  `transformers[serving]`, whose command is on the PATH or in TRANSFORMERS_COMMAND; a tiny model is made

Run with `pytest -m servers`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
from tts_plugins_openai import result_of, scale

from tts_plugins import Budget, Ledger, Problem, Result, SelfConsistency, solve
from tts_plugins.errors import AllCandidatesFailed, TTSError, WeightsError
from tts_plugins.models import OpenAICompatibleModel

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::ResourceWarning")]
KEY = "sk-planted-0815-abcdef"


@dataclass(frozen=True)
class Running:
    """A server.

    Attributes:
        strict: it refuses models that it does not have.
        keyed: it wants the key.
    """

    base_url: str
    model: str
    strict: bool = False
    keyed: bool = False
    more: dict[str, Any] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def started(command: list[str], port: int, path: str, folder: Path, **environment: str) -> Iterator[str]:
    """A server's process, once it answers at a path; it is ended afterwards."""
    log = (folder / "server.log").open("w+")
    process = subprocess.Popen(
        command, stdout=log, stderr=log, cwd=folder, env={**os.environ, **environment}, start_new_session=True
    )
    try:
        until = time.monotonic() + 180
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    pytest.fail(f"{command[0]} did not start: {log.read()[-2000:]}")
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        log.close()


def llama(folder: Path) -> Iterator[Running]:
    pytest.importorskip("xllamacpp")
    from tts_plugins.models._llama_cpp.server import LlamaServer
    from tts_plugins.models._llama_cpp.weights import embedded_weights

    try:
        weights = embedded_weights()
    except WeightsError as error:
        pytest.skip(f"there are no weights here: {error}")
    with LlamaServer(weights, context=512, slots=4, threads=1) as server:
        yield Running(server.base_url, "local")


def litellm(folder: Path) -> Iterator[Running]:
    command = os.environ.get("LITELLM_COMMAND") or shutil.which("litellm")
    if command is None:
        pytest.skip("litellm[proxy] is not installed")
    port = free_port()
    one = {
        "model_name": "mock",
        "litellm_params": {"model": "openai/mock", "api_key": "x", "mock_response": "It is 4."},
    }
    # JSON is YAML.
    (folder / "config.yaml").write_text(json.dumps({"model_list": [one], "general_settings": {"master_key": KEY}}))
    arguments = [command, "--config", "config.yaml", "--port", str(port), "--host", "127.0.0.1"]
    with started(arguments, port, "/health/liveliness", folder, LITELLM_LOCAL_MODEL_COST_MAP="True") as base_url:
        yield Running(base_url, "mock", strict=True, keyed=True)


def transformers(folder: Path) -> Iterator[Running]:
    command = os.environ.get("TRANSFORMERS_COMMAND") or shutil.which("transformers")
    if command is None:
        pytest.skip("transformers[serving] is not installed")
    port, place = free_port(), folder / "tiny"
    python = str(Path(command).with_name("python"))
    subprocess.run([python, "-c", TINY, str(place)], check=True, timeout=300)
    arguments = [command, "serve", "--host", "127.0.0.1", "--port", str(port)]
    with started(arguments, port, "/health", folder, HF_HUB_OFFLINE="1") as base_url:
        yield Running(base_url, str(place))


TINY = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = {chr(i): i - 29 for i in range(32, 127)} | {"<s>": 0, "</s>": 1, "<unk>": 2}
made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }} {% endfor %}assistant: "
config = LlamaConfig(vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                     num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""


@pytest.fixture(scope="module", params=[llama, litellm, transformers], ids=lambda f: f.__name__)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    yield from request.param(tmp_path_factory.mktemp("server"))


def model_of(server: Running, **settings: Any) -> OpenAICompatibleModel:
    given = {"base_url": server.base_url, "api_key": KEY, "max_tokens": 12, "temperature": 0.8, "timeout": 120.0}
    return OpenAICompatibleModel(server.model, **{**given, **server.more, **settings})


@pytest.mark.parametrize("stream", [False, True])
async def test_four_candidates_come_and_are_paid_for(server: Running, stream: bool) -> None:
    model, ledger = model_of(server, stream=stream), Ledger(Budget(calls=20, tokens=20_000))
    for _ in range(2):  # what is found out by the first is used by the second
        result = await solve("What is 2 + 2?", model=model, strategy=SelfConsistency(n=4), budget=ledger, seed=1)
        assert len(result.candidates) == 4 and result.usage.prompt_tokens > 0 and result.usage.completion_tokens > 0
    await model.aclose()
    # A server that mixes several choices of a stream is paid for them, and asked singly from then on.
    assert ledger.open_holds == 0 and not any(ledger.overshoot) and 8 <= ledger.spent.calls <= (12 if stream else 8)


async def test_a_budget_holds(server: Running) -> None:
    model = model_of(server)
    bound = await model.bound(Problem("What is 2 + 2?"))
    ledger = Ledger(Budget(tokens=3 * bound.amount.tokens))
    result = await solve("What is 2 + 2?", model=model, strategy=SelfConsistency(n=50), budget=ledger)
    await model.aclose()
    assert (
        result.stopped in ("budget", "complete")
        and ledger.spent.tokens <= 3 * bound.amount.tokens
        and len(result.candidates) >= 2
    )


async def test_a_cancelled_search_leaves_the_server_usable(server: Running) -> None:
    model = model_of(server, stream=True, max_tokens=200)
    with contextlib.suppress(TTSError, TimeoutError):
        await asyncio.wait_for(solve("Count.", model=model, strategy=SelfConsistency(n=8)), 0.3)
    result = await solve("What is 2 + 2?", model=model_of(server), strategy=SelfConsistency(n=1))
    await model.aclose()
    assert isinstance(result, Result)


async def test_errors_say_what_to_do_and_no_key(server: Running) -> None:
    if server.strict:
        with pytest.raises(TTSError) as caught:
            await solve("x", model=model_of(Running(server.base_url, "absent")), strategy=SelfConsistency(n=2))
        assert KEY not in str(caught.value)
    if server.keyed:
        wrong = "sk-wrong-000111222"
        with pytest.raises(TTSError) as caught:
            await solve("x", model=model_of(server, api_key=wrong), strategy=SelfConsistency(n=2))
        assert wrong not in str(caught.value)


async def test_fields_that_it_does_not_know_cost_no_candidate(server: Running) -> None:
    model = model_of(server, params={"top_p": 0.9}, extra_body={"some_field_of_ours": 1})
    with contextlib.suppress(AllCandidatesFailed):  # it may refuse them, but must say so
        result = await solve("What is 2 + 2?", model=model, strategy=SelfConsistency(n=2), seed=3)
        assert len(result.candidates) == 2
    await model.aclose()


@pytest.mark.parametrize("stream", [False, True])
def test_a_scaled_client_answers_as_the_bare_one(server: Running, stream: bool) -> None:
    with openai.OpenAI(base_url=server.base_url, api_key=KEY) as client:
        ask: dict[str, Any] = {"model": server.model, "messages": [{"role": "user", "content": "2 + 2?"}],
                               "max_tokens": 12, "temperature": 0.8}  # fmt: skip
        answer: Any = scale(client, strategy=SelfConsistency(n=3)).chat.completions.create(**ask, stream=stream)
        if stream:
            assert "".join(c.choices[0].delta.content or "" for c in answer if c.choices) is not None
        else:
            assert answer.choices[0].message.role == "assistant"
        assert len(result_of(answer).candidates) == 3
