"""What a program answers with where no prediction is sure enough, and what a prediction says of its search."""

from __future__ import annotations

from typing import Any

import dspy

from tts_plugins import Abstained, Escalation, Result
from tts_plugins.errors import ConfigurationError, LowConfidence


class Withheld(dspy.Prediction):  # type: ignore[misc]
    """A prediction that gives no answer: its fields are those of the withheld one, and are all None.

    `abstained` says why, and whether a person is to be asked (`abstained.person`). It counts as false.
    """

    def __init__(self, fields: Any, abstained: Abstained) -> None:
        super().__init__(**{str(name): None for name in fields})
        self._abstained = abstained

    @property
    def abstained(self) -> Abstained:
        """Why there is no answer."""
        return self._abstained

    def __bool__(self) -> bool:
        return False


def prediction_of(result: Result) -> Any:
    """Return the chosen prediction, which `metadata_of` tells of; a `Withheld` one where nothing is answered."""
    if result.abstained is not None:
        made: Any = Withheld(_fields(result.best.output), result.abstained)
    else:
        made = result.output
    if isinstance(made, dspy.Prediction):
        made._tts = _summary(result)
    return made


def metadata_of(prediction: Any) -> dict[str, Any]:
    """Return what a prediction says of its search: score, confidence, agreement, why it stopped, what was spent.

    Raises:
        ConfigurationError: it did not come from a search.
    """
    found = getattr(prediction, "_tts", None)
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"metadata_of: this {type(prediction).__name__} did not come from a search; pass what a scaled program "
            "returned"
        )
    return dict(found)


def output_of(result: Result) -> Any:
    """Return the chosen output of a language model, which has no form for an answer that is withheld.

    Raises:
        LowConfidence: no answer is sure enough.
    """
    if result.abstained is None:
        return result.output
    error = LowConfidence(
        f"no answer: {result.abstained.reason}", confidence=result.confidence, below=result.abstained.below
    )
    error.result = result
    raise error


def check_escalation(owner: str, value: Any, module: Any = None) -> None:
    """Raise unless `escalate` is a module, a language model, a strategy or a person.

    Raises:
        ConfigurationError: it is something else, or a language model that the module's predictors would not use.
    """
    if value is None:
        return
    if isinstance(value, dspy.BaseLM):
        own = [name for name, p in module.named_predictors() if p.lm is not None] if module is not None else []
        if own:
            raise ConfigurationError(
                f"{owner}: escalate={value.model!r} is a language model, and the predictor {own[0]!r} has one of its "
                "own, which it would go on using; pass a module instead"
            )
        return
    if isinstance(value, dspy.Module) and module is not None:
        return
    made = None if isinstance(value, dspy.Module) else Escalation.of(owner, value)
    if made is None or made.model is not None:
        wanted = "a dspy.LM" if module is None else "a dspy.Module or a dspy.LM"
        raise ConfigurationError(f"{owner}: escalate={value!r} gives other answers than those asked for; pass {wanted}")


def _fields(output: Any) -> list[str]:
    return list(output.keys()) if isinstance(output, dspy.Prediction) else []


def _summary(result: Result) -> dict[str, Any]:
    return {
        "score": result.score,
        "confidence": result.confidence,
        "agreement": result.agreement,
        "candidates": len(result.candidates),
        "stopped": result.stopped,
        "warnings": list(result.warnings),
        "escalated": result.escalated,
        "abstained": None if result.abstained is None else result.abstained.to_dict(),
        "seed": result.seed,
        "usage": result.usage.to_dict(),
    }
