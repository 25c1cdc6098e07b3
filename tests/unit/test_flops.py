from __future__ import annotations

import pytest

from tts_plugins.bench.analysis.flops import exchange, inference, pretraining
from tts_plugins.errors import ConfigurationError


@pytest.mark.parametrize(("share", "printed"), [(0.16, 258), (0.79, 63), (22, 15.8)])
def test_the_papers_three_exchange_rates(share: float, printed: float) -> None:
    assert round(exchange(14, share), 1 if printed < 20 else 0) == printed


def test_the_rate_balances_both_sides() -> None:
    n, m, trained, generated = 3e9, 14.0, 1e12, 3e11
    larger = pretraining(m * n, trained) + inference(m * n, generated)
    more = exchange(m, generated / trained)
    assert pretraining(n, trained) + inference(n, more * generated) == pytest.approx(larger)
    assert exchange(1, 0.5) == 1 and inference(n, 0) == 0


@pytest.mark.parametrize("wrong", [lambda: exchange(0.5, 1), lambda: exchange(14, 0), lambda: pretraining(-1, 1),
                                   lambda: inference(float("nan"), 1), lambda: pretraining(True, 1)])  # fmt: skip
def test_nonsense_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        wrong()  # type: ignore[operator]
