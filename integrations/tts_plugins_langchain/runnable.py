"""`scale`: any chain in, a runnable out that searches where the chain would have answered once."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Never, Unpack, cast

from langchain_core.runnables import Runnable, RunnableConfig, RunnableSerializable
from langchain_core.runnables.base import coerce_to_runnable
from langchain_core.runnables.config import ContextThreadPoolExecutor, get_config_list
from langchain_core.runnables.graph import Graph
from langchain_core.runnables.utils import ConfigurableFieldSpec, Input, Output, get_unique_config_specs
from pydantic import BaseModel, Field, PrivateAttr

from tts_plugins import Result
from tts_plugins.adapters import MeteredModel, SearchSettings, called_as, check_names, check_placed
from tts_plugins.errors import ConfigurationError
from tts_plugins_langchain._fields import ScaleOptions, SearchFields
from tts_plugins_langchain._io.attempt_inputs import Carrier, Target
from tts_plugins_langchain._io.conversion import problem_of
from tts_plugins_langchain._io.graph_checks import check_memory
from tts_plugins_langchain._io.messages import output_of
from tts_plugins_langchain._io.parts import Leaves, forms_of, leaves_of
from tts_plugins_langchain._io.revision import carrier_of, check_strategy
from tts_plugins_langchain._io.temperature import check_sampling, temperatures_of
from tts_plugins_langchain._io.variants import varied
from tts_plugins_langchain._runs import Runs, passing_on
from tts_plugins_langchain._search import Search
from tts_plugins_langchain._settings import SPECS

_MOST_THREADS = 256

_NO_STEPS = (
    "search inside it, where a chat model writes them: "
    "prompt | ScaledChatModel(model, strategy=BeamSearch(...)) | parser"
)

_NO_MEMORY = (
    "compile it without one and make the scaled graph a node of a graph that has one, or search inside it: "
    "create_agent(..., middleware=[TestTimeScaling(...)])"
)


class ScaledRunnable(SearchFields, RunnableSerializable[Input, Output]):
    """A chain that is asked several times, and answers with the best it said. Made by `scale`.

    It is a runnable like any other: `invoke`, `batch`, `stream`, `|`, `with_retry`, `with_fallbacks` and the rest.
    `stream` gives the answer when it is chosen, in one piece. `solve` and `asolve` give the whole `Result`.

    One call may change its settings: `config={"configurable": {"tts_n": 4, "tts_budget_tokens": 5000}}`; the names are
    tts_strategy, tts_n, tts_profile, tts_seed, tts_budget_calls, tts_budget_tokens, tts_budget_usd, tts_budget_seconds.
    """

    bound: Runnable[Input, Output]
    """What is wrapped."""
    profile: str | None = None
    """A named bundle of settings; it gives those that are not set here."""
    name: str | None = Field(default=None)

    _model: MeteredModel = PrivateAttr()
    _carrier: Carrier = PrivateAttr()
    _leaves: Leaves = PrivateAttr(default_factory=Leaves)

    def model_post_init(self, context: Any) -> None:
        """Check what can be checked before the first call."""
        super().model_post_init(context)
        check_memory(self.get_name(), self.bound, _NO_MEMORY)
        self._model = self._of(self.concurrency)
        self._carrier = carrier_of(self.get_name(), self.bound, self.revision)
        self._checked({})

    def _of(self, concurrency: int | None) -> MeteredModel:
        return MeteredModel(self.bound.get_name(), concurrency, no_steps=_NO_STEPS)

    def _checked(self, config: RunnableConfig) -> SearchSettings:
        settings = self._settings(config)
        check_strategy(self.get_name(), settings.strategy, self._carrier, _NO_STEPS)
        return settings

    def invoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """The answer that was chosen. The chain's synchronous methods run, each candidate on a thread of its own.

        Raises:
            BudgetExhausted, DeadlineExceeded: there was no room, or no time, for a single candidate.
            AllCandidatesFailed: every candidate failed, for reasons that have no class in common. If they have one, the
                first original exception is raised, with `AllCandidatesFailed` as its `__cause__`.
            ConfigurationError: several samples are asked of a chain whose every model has temperature 0.
        """
        return cast(Output, output_of(self.solve(input, config, **kwargs)))

    async def ainvoke(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Output:
        """`invoke` on this loop, through the chain's `ainvoke`."""
        return cast(Output, output_of(await self.asolve(input, config, **kwargs)))

    def solve(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Result:
        """The whole result: all candidates with their scores, the usage, why it stopped, and the trace."""
        box: list[Result] = []

        def run(input: Input, config: RunnableConfig) -> Any:
            box.append(self._solved(input, config, kwargs))
            return output_of(box[0])

        self._call_with_config(_of_one_call(run), input, config)
        return box[0]

    async def asolve(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any) -> Result:
        """`solve` on this loop, through the chain's `ainvoke`."""
        box: list[Result] = []

        async def run(input: Input, config: RunnableConfig) -> Any:
            box.append(await self._asolved(input, config, kwargs))
            return output_of(box[0])

        await self._acall_with_config(_of_one_call(run), input, config)
        return box[0]

    def stream(self, input: Input, config: RunnableConfig | None = None, **kwargs: Any | None) -> Iterator[Output]:
        """The answer that was chosen, in one piece."""

        def run(inputs: Iterator[Input], config: RunnableConfig) -> Iterator[Output]:
            for each in inputs:
                yield cast(Output, output_of(self._solved(each, config, kwargs)))

        yield from self._transform_stream_with_config(iter([input]), _of_one_call(run), config)

    async def astream(
        self, input: Input, config: RunnableConfig | None = None, **kwargs: Any | None
    ) -> AsyncIterator[Output]:
        """The answer that was chosen, in one piece, through the chain's `ainvoke`."""

        async def run(inputs: AsyncIterator[Input], config: RunnableConfig) -> AsyncIterator[Output]:
            async for each in inputs:
                yield cast(Output, output_of(await self._asolved(each, config, kwargs)))

        async def inputs() -> AsyncIterator[Input]:
            yield input

        async for output in self._atransform_stream_with_config(inputs(), _of_one_call(run), config):
            yield output

    def batch(
        self,
        inputs: list[Input],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Output]:
        """All inputs at once, each with a budget of its own; `max_concurrency` in the config limits them."""
        configs = get_config_list(config, len(inputs)) if inputs else []

        def one(input: Input, config: RunnableConfig) -> Output | Exception:
            try:
                return self.invoke(input, config, **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        if len(inputs) < 2:
            return cast(list[Output], [one(*pair) for pair in zip(inputs, configs, strict=True)])
        # LangChain's own pool has a few threads more than there are cores: they would wait in line for each other.
        threads = configs[0].get("max_concurrency") or min(len(inputs), _MOST_THREADS)
        with ContextThreadPoolExecutor(max_workers=threads) as pool:
            return cast(list[Output], list(pool.map(one, inputs, configs)))

    def _solved(self, input: Input, config: RunnableConfig, kwargs: dict[str, Any]) -> Result:
        search = self._search(input, config, kwargs)
        result = search.run()
        search.show(result)
        return result

    async def _asolved(self, input: Input, config: RunnableConfig, kwargs: dict[str, Any]) -> Result:
        search = self._search(input, config, kwargs)
        result = await search.arun()
        await search.ashow(result)
        return result

    def _search(self, input: Input, config: RunnableConfig, kwargs: dict[str, Any]) -> Search:
        """A search whose runs are children of the run that LangChain has put into the config."""
        bound, cap = self.bound, config.get("max_concurrency")
        settings = self._checked(config)
        leaves = self._leaves.under(bound, kwargs, config)
        check_sampling(self.get_name(), settings, temperatures_of(leaves))
        if config.get("configurable"):  # it may choose an alternative that is made only then
            for part in leaves_of(bound, kwargs, config):
                check_memory(self.get_name(), part.runnable, _NO_MEMORY)
        return Search(
            # LangChain's limit is one for each level; `concurrency` is one for all calls.
            model=self._model if cap is None or self.concurrency is not None else self._of(cap),
            target=Target(
                name=self._model.name,
                input=input,
                carrier=self._carrier,
                invoke=lambda asked, inner: passing_on(varied(bound)).invoke(asked, inner, **kwargs),
                ainvoke=lambda asked, inner: passing_on(varied(bound)).ainvoke(asked, inner, **kwargs),
                bound=bound,
                arguments=kwargs,
                config=config,
            ),
            problem=problem_of(input, **forms_of(leaves)),
            settings=settings,
            runs=Runs(cast(Any, config["callbacks"]), config, input),
        )

    def _profile_name(self) -> str | None:
        return self.profile

    def get_name(self, suffix: str | None = None, *, name: str | None = None) -> str:
        """`scaled(…)` with the wrapped runnable's name, where it has none of its own."""
        return super().get_name(suffix, name=name or self.name or f"scaled({self.bound.get_name()})")

    @property
    def InputType(self) -> type[Input]:
        """The wrapped runnable's."""
        return self.bound.InputType

    @property
    def OutputType(self) -> type[Output]:
        """The wrapped runnable's."""
        return self.bound.OutputType

    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The wrapped runnable's."""
        return cast(type[BaseModel], self.bound.get_input_schema(config))

    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The wrapped runnable's."""
        return cast(type[BaseModel], self.bound.get_output_schema(config))

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The wrapped runnable's, and the settings that one call may change."""
        return get_unique_config_specs([*self.bound.config_specs, *SPECS])

    def get_graph(self, config: RunnableConfig | None = None) -> Graph:
        """The wrapped runnable's."""
        return self.bound.get_graph(config)


_INPUT_AND_CONFIG = inspect.signature(lambda input, config: None)


def _of_one_call(run: Callable[[Any, RunnableConfig], Any]) -> Any:
    """Spare LangChain to read the signature of a function that is made for one call, which it would do twice."""
    vars(run)["__signature__"] = _INPUT_AND_CONFIG
    return run


@called_as("scale(chain, n=8)")
def scale(
    runnable: Runnable[Input, Output] | Callable[..., Any],
    *placed: Never,
    **options: Unpack[ScaleOptions],
) -> ScaledRunnable[Input, Output]:
    """Wrap a chain, so that it is asked several times and gives the best answer.

    Args:
        runnable: a chain, a model, a graph, or a function.
        strategy: how compute is spent; an object, or its registered name.
        verifier: one of `tts_plugins.verifiers`; a function of the output, or of (problem, candidate); or a runnable
            that gets {"input", "output", "question", "text", "answer"} and gives a number, or `score` and `feedback`.
        budget: limits for each call, or a `Ledger` that all calls share.
        seed: fixes each candidate's seed, and the place of samples in a cache.
        profile: a named bundle of settings.
        abstain_below: the least confidence with which an input is answered, 0 to 1 (see `Result.confidence`).
        on_abstain: below it, the output is None ("none"), `LowConfidence` is raised ("raise"), or what `escalate` names
            is asked within the same budget ("escalate").
        escalate: a larger chain, or a chat model in the place of the chain's own, asked once; a strategy; or "person",
            where the result says that a person is to be asked (`TestTimeScaling` interrupts the graph for it).
        n, answer, price, concurrency, on_exhausted, name, revision: as for `ScaledRunnable`.

    Strategies that revise show earlier attempts, with what the verifier said of them, to the chain: a chat model as
    further turns, a graph at the end of its `messages`, a prompt in its variable `attempts`, `feedback` or `history`
    (a placeholder or a text; empty for first answers, where the input leaves it out). `revision="name"` names another
    variable; `revision=` may be a function of (problem, attempts) that returns the whole input.

    Raises:
        ConfigurationError: a setting is wrong, the profile is not known, the strategy revises and the chain has no
            place for attempts, it searches over steps, which a chat model writes and a chain does not, or a graph in it
            has a checkpointer of its own: all candidates would be written to the caller's one thread.
    """
    if not isinstance(runnable, Runnable) and not callable(runnable):
        raise ConfigurationError(f"scale: runnable={runnable!r} is not a runnable; pass a chain, a model or a function")
    check_placed("scale(chain", placed)
    check_names("scale", options, ScaleOptions.__annotations__)
    return ScaledRunnable(bound=coerce_to_runnable(cast(Any, runnable)), **options)
