"""A process reward model loaded by transformers: from safetensors, without code or pickles of others.

Checkpoints of this kind mostly come with code of their own for a small head on a known backbone. That code is not run:
the backbone is transformers' own, and the head's layers are read by name.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_plugins._internal.files import expanded
from tts_plugins.errors import MissingExtraError, VerifierError, WeightsError
from tts_plugins.verifiers.process._reward_families import RewardFamily

_HEADS = ("score.", "v_head.")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WANTED = ["*.safetensors", "*.json", "*.txt", "tokenizer*"]  # of a repository: no pickles, no code


@dataclass(frozen=True, kw_only=True)
class RewardModel:
    """A loaded model.

    Attributes:
        name: for errors.
        tokeniser: transformers' fast tokeniser.
        backbone: from token ids to hidden states.
        head: from hidden states, (places, size), to rows, (places, columns).
        separator: the token that must be at each place; None if any may.
        length: tokens that it can read at most; None if that is not known.
    """

    name: str
    tokeniser: Any
    backbone: Any
    head: Callable[[Any], Any]
    separator: int | None
    length: int | None

    @classmethod
    def load(cls, model: str | Path, family: RewardFamily, *, device: str | None, dtype: str | None) -> RewardModel:
        """Return the model in a folder, or of that name on the Hub.

        Raises:
            MissingExtraError, WeightsError: see `ProcessVerifierTransformers.load`.
        """
        safetensors, torch, transformers = _libraries()
        folder = _folder(model)
        where = device or ("cuda" if torch.cuda.is_available() else "cpu")
        kind = transformers.AutoModelForCausalLM if family.words else transformers.AutoModel
        try:
            tokeniser = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            with _quiet():
                whole, seen = kind.from_pretrained(
                    folder, trust_remote_code=False, use_safetensors=True, dtype=dtype or "auto",
                    output_loading_info=True,
                )  # fmt: skip
        except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{model}: transformers cannot load it: {str(error)[:300]}") from error
        if missing := sorted(seen["missing_keys"]):
            raise WeightsError(
                f"{model}: the checkpoint lacks {len(missing)} weights of its backbone, such as {missing[0]}; it is "
                f"not a {type(whole).__name__}, or its names have a prefix that transformers does not know"
            )
        if not tokeniser.is_fast:
            raise WeightsError(f"{model}: its tokeniser reports no positions in the text; add a tokenizer.json")
        whole = whole.to(where).eval()
        head = _answering(whole, tokeniser, family, model) if family.words else _head(folder, whole, model)
        mark = family.separator.strip()
        ids = tokeniser.encode(mark, add_special_tokens=False) if mark and family.rows == "step" else []
        return cls(
            name=str(model), tokeniser=tokeniser, backbone=whole.base_model, head=head,
            separator=ids[-1] if ids else None, length=getattr(whole.config, "max_position_embeddings", None),
        )  # fmt: skip

    def rows(self, text: str, ends: Sequence[int]) -> tuple[list[list[float]], int]:
        """Return the head's numbers at the token where each of these beginnings of the text ends, and all tokens.

        Raises:
            VerifierError: the text is too long, or a separator is not a token of its own.
        """
        import torch

        coded = self.tokeniser(text, return_offsets_mapping=True, return_tensors="pt")
        ids, offsets = coded["input_ids"], coded["offset_mapping"][0].tolist()
        count = ids.shape[1]
        if self.length is not None and count > self.length:
            raise VerifierError(f"{self.name}: the text has {count} tokens, and the model reads {self.length} at most")
        places = [_place(offsets, len(text[:end].rstrip()) if self.separator is not None else end) for end in ends]
        if self.separator is not None and any(int(ids[0, place]) != self.separator for place in places):
            raise VerifierError(
                f"{self.name}: a step does not end with the token {self.separator}, the separator of its family; "
                "check that the family is right for this model"
            )
        with torch.inference_mode():
            states = self.backbone(input_ids=ids.to(self.backbone.device)).last_hidden_state[0, places]
            rows: list[list[float]] = self.head(states).float().cpu().tolist()
        return rows, count


def _place(offsets: Sequence[Sequence[int]], end: int) -> int:
    """Return the token that holds the character before `end`."""
    holding = [i for i, (start, stop) in enumerate(offsets) if start < end <= stop]
    # Blanks may belong to no token; the last one before them has read all that matters.
    return holding[-1] if holding else max(i for i, (start, stop) in enumerate(offsets) if start < stop <= end)


def _libraries() -> tuple[Any, Any, Any]:
    try:
        import safetensors
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError(
            f"ProcessVerifierTransformers needs {error.name}: pip install 'tts-plugins[transformers]'"
        ) from error
    return safetensors, torch, transformers


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' report on weights that it does not know (the head's); missing ones are checked here."""
    logger = logging.getLogger("transformers.modeling_utils")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _folder(model: str | Path) -> Path:
    """Return the folder of the files; fetch them from the Hub if there is no such folder."""
    folder = expanded(model)
    if not folder.is_dir():
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        try:
            folder = Path(huggingface_hub.snapshot_download(str(model), allow_patterns=_WANTED))
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise WeightsError(
                f"{model}: there is no such folder, and the Hugging Face Hub gives no such model: {str(error)[:200]}"
            ) from error
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickled:
            raise WeightsError(
                f"{model}: its weights are pickles ({pickled[0]}), which can run code when they are read; convert them "
                "to safetensors on a machine that you can lose (load there, then save_pretrained), or take a "
                "checkpoint that has them"
            )
        raise WeightsError(f"{model}: there is no *.safetensors in it; give a folder as save_pretrained writes it")
    return folder


def _answering(whole: Any, tokeniser: Any, family: RewardFamily, model: str | Path) -> Callable[[Any], Any]:
    """Return the logits of the family's words."""
    import torch

    ids = [tokeniser.encode(word, add_special_tokens=False)[-1] for word in family.words]
    if len(set(ids)) < len(ids):
        raise WeightsError(f"{model}: its tokeniser does not distinguish {family.words}; check the family")
    layer = whole.get_output_embeddings()
    weight, bias = layer.weight[ids], None if getattr(layer, "bias", None) is None else layer.bias[ids]
    return lambda states: torch.nn.functional.linear(states, weight, bias)


def _head(folder: Path, whole: Any, model: str | Path) -> Callable[[Any], Any]:
    """Return the layers of the checkpoint's own head, with ReLU between them."""
    import torch
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(_HEADS)]  # noqa: SIM118 - it is not a mapping
            found |= {name: file.get_tensor(name).to(whole.device, whole.dtype) for name in names}
    weights = sorted((n for n in found if n.endswith("weight")), key=lambda n: [int(d) for d in re.findall(r"\d+", n)])
    layers = [(found[name], found.get(name.removesuffix("weight") + "bias")) for name in weights]
    size = whole.config.hidden_size
    for weight, _ in layers:
        if weight.ndim != 2 or weight.shape[1] != size:
            raise WeightsError(f"{model}: a layer of its head is {tuple(weight.shape)} where {size} numbers come in")
        size = weight.shape[0]
    if not layers:
        raise WeightsError(
            f"{model}: it has no head, score.* or v_head.*; it is not a reward model, or answers with words "
            "(family='math-shepherd')"
        )

    def head(states: Any) -> Any:
        for i, (weight, bias) in enumerate(layers):
            states = torch.nn.functional.linear(torch.relu(states) if i else states, weight, bias)
        return states

    return head
