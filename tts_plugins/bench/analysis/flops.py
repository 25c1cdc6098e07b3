"""Floating-point operations of pretraining and inference, and their exchange. Pure.

Source: Snell, Lee, Xu & Kumar 2024 (2408.03314), section 7; the factors 6 and 2 are those of Hoffmann et al. 2022
(2203.15556): a token costs 2 operations a parameter forward, and 4 more backward.
"""

from __future__ import annotations

from tts_plugins._internal.values import is_number
from tts_plugins.errors import ConfigurationError


def pretraining(parameters: float, tokens: float) -> float:
    """Return the FLOPs of training `parameters` on `tokens`: 6 N D.

    Raises:
        ConfigurationError: one is not a positive number.
    """
    return 6 * _positive("pretraining", "parameters", parameters) * _positive("pretraining", "tokens", tokens)


def inference(parameters: float, tokens: float) -> float:
    """Return the FLOPs of generating or reading `tokens` with `parameters`: 2 N D, without attention.

    Raises:
        ConfigurationError: one is not a number from 0, or there are no parameters.
    """
    if tokens == 0:
        return 0.0
    return 2 * _positive("inference", "parameters", parameters) * _positive("inference", "tokens", tokens)


def exchange(times_smaller: float, inference_share: float) -> float:
    """Return how many times more inference a model M times smaller may use at the larger model's total FLOPs.

    M + 3 (D_pretrain / D_inference) (M - 1), from 6 N D_pre + 2 N D_inf on both sides.

    Args:
        times_smaller: M, the larger model's parameters over the smaller one's; at least 1.
        inference_share: R = D_inference / D_pretrain, tokens ever generated over tokens trained on.

    Raises:
        ConfigurationError: M is below 1, or R is not a positive number.
    """
    m = _positive("exchange", "times_smaller", times_smaller)
    if m < 1:
        raise ConfigurationError(f"exchange: times_smaller={times_smaller!r} must be at least 1; swap the two models")
    return m + 3 / _positive("exchange", "inference_share", inference_share) * (m - 1)


def _positive(who: str, name: str, value: float) -> float:
    if not is_number(value) or value <= 0:
        raise ConfigurationError(f"{who}: {name}={value!r} must be a number above 0")
    return float(value)
