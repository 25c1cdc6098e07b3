"""ProcessVerifierTransformers on tiny models that are made here, against the same figures computed by hand.

It needs torch, which is in no other extra: `pip install 'tts-plugins[transformers,testing]'`, then
`python -m pytest tests/unit/test_process_transformers.py`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="torch is not installed; pip install 'tts-plugins[transformers]'")
pytest.importorskip("transformers", reason="it is not installed; pip install 'tts-plugins[transformers]'")

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from tts_plugins import BestOfN, Result, solve
from tts_plugins.errors import AllCandidatesFailed, ConfigurationError, WeightsError
from tts_plugins.protocols import SetVerifier, Verifier
from tts_plugins.testing import ScriptedModel
from tts_plugins.testing.contracts import VerifierContract
from tts_plugins.verifiers import ProcessVerifierTransformers, RewardFamily
from tts_plugins.verifiers.process._reward_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch and transformers themselves

PROBLEM = "What is 3 + 4?"
STEPS = ["First ки step.", "Second {steps} step.", "The answer is 7."]
SIZE = 32
SETTINGS = {
    "hidden_size": SIZE, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 1024,
}  # fmt: skip
# What would run if the code that comes with a checkpoint were run.
HOSTILE = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('x')\nclass Evil: pass\n"


def tokeniser() -> Any:
    """Bytes, and the separators of all families as tokens of their own."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = tokenizers.decoders.ByteLevel()
    made.add_special_tokens(["<extra_0>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    made.add_tokens(["ки"])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made)


def saved(folder: Path, model: Any, head: dict[str, Any] | None = None, **config: Any) -> Path:
    """A checkpoint, with a head of its own beside the backbone."""
    torch.manual_seed(1)
    model.save_pretrained(folder)
    tokeniser().save_pretrained(folder)
    if head:
        file = folder / "model.safetensors"
        whole = {f"model.{name}": tensor for name, tensor in load_file(file).items()}
        save_file({**whole, **head}, file, metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    return folder


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def qwen(folder: Path) -> Path:
    head = {
        "score.0.weight": torch.randn(SIZE, SIZE) / 8, "score.0.bias": torch.randn(SIZE),
        "score.2.weight": torch.randn(2, SIZE) / 8, "score.2.bias": torch.randn(2),
    }  # fmt: skip
    model = transformers.Qwen2Model(transformers.Qwen2Config(**SETTINGS))
    auto = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}
    made = saved(folder, model, head, architectures=["Qwen2ForProcessRewardModel"], auto_map=auto)
    (made / "evil.py").write_text(HOSTILE)
    return made


def shepherd(folder: Path) -> Path:
    return saved(folder, transformers.LlamaForCausalLM(transformers.LlamaConfig(**SETTINGS)))


def token(folder: Path) -> Path:
    model = transformers.Qwen2Model(transformers.Qwen2Config(**SETTINGS))
    head = {"v_head.summary.weight": torch.randn(1, SIZE) / 8, "v_head.summary.bias": torch.randn(1)}
    return saved(folder, model, head)


def text_of(family: str) -> str:
    return FAMILIES[family].render(PROBLEM, STEPS)


def states(folder: Path, kind: Any, text: str) -> tuple[Any, list[int], dict[str, Any]]:
    """The backbone's last hidden states, the text's tokens, and the checkpoint's tensors."""
    ids = tokeniser()(text)["input_ids"]
    model = kind.from_pretrained(folder).eval()
    with torch.inference_mode():
        found = model.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    return found, ids, load_file(folder / "model.safetensors")


def by_hand_qwen(folder: Path) -> list[float]:
    found, ids, all_ = states(folder, transformers.Qwen2Model, text_of("qwen"))
    mark = tokeniser().convert_tokens_to_ids("<extra_0>")
    at = [i for i, token in enumerate(ids) if token == mark]
    hidden = torch.relu(found[at] @ all_["score.0.weight"].T + all_["score.0.bias"])
    return [float(p[1]) for p in torch.softmax(hidden @ all_["score.2.weight"].T + all_["score.2.bias"], -1)]


def by_hand_shepherd(folder: Path) -> list[float]:
    words = tokeniser()
    ids = words(text_of("math-shepherd"))["input_ids"]
    at = [i for i, token in enumerate(ids) if token == words.convert_tokens_to_ids("ки")]
    model = transformers.LlamaForCausalLM.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, at]
    two = logits[:, [words.encode("+")[-1], words.encode("-")[-1]]]
    return [float(p[0]) for p in torch.softmax(two, -1)]


def by_hand_token(folder: Path) -> list[float]:
    text = text_of("token")
    found, _, all_ = states(folder, transformers.Qwen2Model, text)
    body = len(f"{PROBLEM}\n".encode())
    data = text.encode()
    at = [i for i in range(body, len(data)) if data[i : i + 1] == b"\n"]
    # A token is a byte here, but for «ки».
    at = [i - 3 * data[:i].decode("utf-8", "ignore").count("ки") for i in at]
    rewards = found[at] @ all_["v_head.summary.weight"].T + all_["v_head.summary.bias"]
    return [float(v) for v in torch.sigmoid(rewards[:, 0])]


async def scored(verifier: Any, **settings: Any) -> Result:
    model = ScriptedModel(["\n\n".join(STEPS)])
    return await solve(PROBLEM, model=model, strategy=BestOfN(n=1), verifier=verifier, **settings)


CASES: dict[str, tuple[Callable[[Path], Path], Callable[[Path], list[float]]]] = {
    "qwen": (qwen, by_hand_qwen),
    "math-shepherd": (shepherd, by_hand_shepherd),
    "token": (token, by_hand_token),
}


@pytest.mark.parametrize("family", CASES)
async def test_scores_are_those_of_the_model(tmp_path: Path, family: str) -> None:
    make, by_hand = CASES[family]
    folder = make(tmp_path)
    verifier = ProcessVerifierTransformers(folder, family=family, aggregate="min", device="cpu")
    result = await scored(verifier)
    wanted = by_hand(folder)
    assert len(wanted) == 3 and max(wanted) - min(wanted) > 1e-4
    assert result.best.step_scores == pytest.approx(wanted, abs=1e-5)
    assert result.score == pytest.approx(min(wanted), abs=1e-5)
    used = result.usage.by_role["verifier"]
    assert (used.calls, used.exact, used.usd) == (1, True, 0.0)
    assert used.prompt_tokens == len(tokeniser()(text_of(family))["input_ids"])


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = qwen(tmp_path)
    ProcessVerifierTransformers(folder, device="cpu").load()
    assert (folder / "evil.py").exists() and not list(tmp_path.rglob("ran"))


async def test_a_classifier_of_tokens_is_a_token_reward_model(tmp_path: Path) -> None:
    config = transformers.Qwen2Config(**SETTINGS, num_labels=1)
    folder = saved(tmp_path, transformers.Qwen2ForTokenClassification(config))
    result = await scored(ProcessVerifierTransformers(folder, family="token", device="cpu"))
    found, _, all_ = states(folder, transformers.Qwen2Model, text_of("token"))
    last = found[-1] @ all_["score.weight"].T + all_["score.bias"]
    assert result.score == pytest.approx(float(torch.sigmoid(last[0])), abs=1e-5)


async def test_the_loop_goes_on_while_it_computes(tmp_path: Path) -> None:
    verifier = ProcessVerifierTransformers(qwen(tmp_path), device="cpu")
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    heart = asyncio.create_task(beat())
    await scored(verifier)
    heart.cancel()
    assert beats > 3


def test_pickles_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    folder = qwen(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pickles \(pytorch_model\.bin\).*convert them to safetensors"):
        ProcessVerifierTransformers(folder).load()


def test_a_name_that_the_hub_cannot_have() -> None:
    with pytest.raises(WeightsError, match="no such folder, and the Hugging Face Hub gives no such model"):
        ProcessVerifierTransformers("not a name!!").load()


BROKEN: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "nothing": (lambda folder: None, "qwen", "no \\*.safetensors"),
    "no head": (shepherd, "qwen", "it has no head"),
    "no backbone": (
        lambda folder: save_file({"score.weight": torch.zeros(2, SIZE)}, qwen(folder) / "model.safetensors",
                                 metadata={"format": "pt"}),
        "qwen", "lacks .* weights of its backbone",
    ),
    "cut": (lambda folder: (qwen(folder) / "model.safetensors").write_bytes(b"\0" * 40), "qwen", "cannot load it"),
    "a head that does not fit": (
        lambda folder: saved(folder, transformers.Qwen2Model(transformers.Qwen2Config(**SETTINGS)),
                             {"score.weight": torch.zeros(2, SIZE + 1)}),
        "qwen", r"a layer of its head is \(2, 33\) where 32 numbers come in",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", BROKEN)
def test_weights_that_are_not_those_of_such_a_model(tmp_path: Path, what: str) -> None:
    make, family, says = BROKEN[what]
    make(tmp_path)
    with pytest.raises(WeightsError, match=says):
        ProcessVerifierTransformers(tmp_path, family=family, device="cpu").load()


async def test_a_text_that_is_too_long_is_an_error_of_the_candidate(tmp_path: Path) -> None:
    verifier = ProcessVerifierTransformers(qwen(tmp_path), device="cpu")
    with pytest.raises(AllCandidatesFailed, match="the model reads 1024 at most"):
        await solve(PROBLEM, model=ScriptedModel(["long " * 400]), strategy=BestOfN(n=1), verifier=verifier)


async def test_a_separator_that_is_no_token_is_an_error(tmp_path: Path) -> None:
    folder = qwen(tmp_path)
    family = RewardFamily(template="{problem} {steps}", step="{step} {separator}!", separator="<extra_0>")
    with pytest.raises(AllCandidatesFailed, match="check that the family is right for this model"):
        await scored(ProcessVerifierTransformers(folder, family=family, device="cpu"))


def test_wrong_settings() -> None:
    for settings in ({"family": "none"}, {"model": ""}, {"aggregate": "sum"}, {"concurrency": 0}):
        with pytest.raises(ConfigurationError):
            ProcessVerifierTransformers(**{"model": "m", **settings})  # type: ignore[arg-type]


class TestContract(VerifierContract):
    texts = ("17 * 23 = 391\n\n#### 391", "It is large.\n\n#### 400")

    @pytest.fixture(autouse=True)
    def _checkpoint(self, tmp_path: Path) -> None:
        self.folder = qwen(tmp_path)

    def make(self) -> Verifier | SetVerifier:
        return ProcessVerifierTransformers(self.folder, device="cpu")
