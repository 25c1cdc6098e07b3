"""Other packages at the same work, where they are installed; this one installs none."""

from __future__ import annotations

import importlib
import logging
from typing import Any

from benchmarks._serving.stage import MAX_TOKENS, question


class ItsHub:
    """Red Hat's its-hub: Best-of-8 with its `LLMJudge`, without its cap of 32 requests at a time."""

    def __init__(self, base_url: str) -> None:
        logging.getLogger().setLevel(logging.CRITICAL)  # it reports each reply to the root logger
        module = importlib.import_module
        model: Any = module("its_hub.core.lms.openai_lm").OpenAICompatibleLanguageModel
        self._orchestrator = module("its_hub.core.orchestrator").LMOrchestrator(max_concurrency=-1)
        self._model = model(base_url, "-", "small", temperature=0.8, max_completion_tokens=MAX_TOKENS)
        self._judge = model(base_url, "-", "judge", temperature=0.0, max_completion_tokens=32)
        judge = module("its_hub.core.reward_models.llm_judge").LLMJudge(self._judge)
        self._best_of = module("its_hub.core.algorithms.bon").BestOfN(judge, self._orchestrator)

    async def __call__(self, number: int) -> object:
        return await self._best_of.ainfer(self._model, question(number), 8)

    async def close(self) -> None:
        """Close its sessions."""
        await self._model.close()
        await self._judge.close()
