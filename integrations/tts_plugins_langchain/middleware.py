"""`TestTimeScaling`: an agent whose every model call is a search, within one budget for the whole run."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Annotated, Any, Never, NotRequired, Unpack, cast

from langchain.agents.middleware import AgentMiddleware, AgentState, ExtendedModelResponse, ModelRequest, ModelResponse
from langchain.agents.middleware.types import OmitFromInput
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.config import get_async_callback_manager_for_config, get_callback_manager_for_config
from langchain_core.tools import BaseTool
from langgraph.types import Command

from tts_plugins import Budget, Result, Usage
from tts_plugins.adapters import LIMITS, MeteredModel, SearchSettings, check_names, check_placed, setting
from tts_plugins.errors import BudgetExhausted, ConfigurationError
from tts_plugins.strategies.escalation import Escalation
from tts_plugins_langchain._fields import MiddlewareOptions
from tts_plugins_langchain._io.agent_calls import Answered, message_of, messages_of, unparsed, varied_request
from tts_plugins_langchain._io.agent_commands import CommandsApart
from tts_plugins_langchain._io.attempt_inputs import Function, Inside, Target, Turns
from tts_plugins_langchain._io.conversion import problem_of
from tts_plugins_langchain._io.messages import charged, summarised, withheld
from tts_plugins_langchain._io.parts import leaves_of
from tts_plugins_langchain._io.person import ask_person
from tts_plugins_langchain._io.revision import check_strategy
from tts_plugins_langchain._io.temperature import check_sampling, temperatures_of
from tts_plugins_langchain._runs import Runs, shows_candidates
from tts_plugins_langchain._search import Search
from tts_plugins_langchain._settings import as_escalation, as_verifier, resolve
from tts_plugins_langchain._streams import silent
from tts_plugins_langchain.caching import candidates_of

Answer = ExtendedModelResponse[Any]
_NO_STEPS = "search inside the agent's model: create_agent(ScaledChatModel(model, strategy=BeamSearch(...)), tools)"

_AROUND: ContextVar[Any] = ContextVar("tts_plugins_langchain_around", default=None)
"""The runtime of the model call that a `TestTimeScaling` searches: one that finds its own here is inside of another."""


def _merged(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any]:
    return {**(old or {}), **(new or {})}


class ScalingState(AgentState[Any]):
    """The agent's state, with what each `TestTimeScaling` has spent in this run, by its name."""

    tts_spent: NotRequired[Annotated[dict[str, dict[str, float]], OmitFromInput, _merged]]


class TestTimeScaling(AgentMiddleware[ScalingState, Any, Any]):
    """Each model call of the agent is made several times, and the best response goes on.

        create_agent(model, tools, middleware=[TestTimeScaling(strategy=SelfConsistency(n=5))])

    Votes are cast on tool names and arguments, else on the text. A verifier's candidate has the message as its
    `output`; its problem has the messages, and `metadata["request"]` the whole request. Candidates are not shown in
    `stream_mode="messages"`; the chosen message is. Put it last in the list: what stands after it runs n times. So does
    another one there, whose calls the first one counts and limits: a budget of its own is refused.

    With `Revision`, each attempt and what the verifier said of it are further messages of the request that is to better
    it (tool calls as JSON); the agent's state has the chosen message alone. Searches over steps belong inside the
    agent's model: `create_agent(ScaledChatModel(model, strategy=BeamSearch(...)))`.

    Args:
        strategy, verifier, n, seed, profile, answer, price, on_exhausted: as for `scale`.
        budget: limits for a whole run of the agent, kept in its state; or a `Ledger` that all runs share.
        when_exhausted: where there is no room for a single candidate: raise `BudgetExhausted`, or end the run with a
            message that says so.
        abstain_below, on_abstain, escalate: as for `scale`; an empty message ends the agent's turn where nothing is
            answered. With `escalate="person"`, the graph is interrupted there (it needs a checkpointer), and goes on
            with the answer that it is resumed with: `Command(resume="…")`.
        concurrency: candidates in flight at most, over all runs.
        revision: instead of further messages, a function of (problem, attempts) that returns all of the request's.
        name: another one for each instance in an agent.

    Raises:
        ConfigurationError: a setting is wrong, the profile is not known, or the strategy searches over steps; in a
            call, several samples are asked for at temperature 0, or it has a budget and stands inside another one.
    """

    __test__ = False  # no test class, whatever pytest thinks of its name
    state_schema = ScalingState
    tools: list[BaseTool] = []  # noqa: RUF012 - as the base class declares it

    def __new__(cls, *placed: Never, **options: Unpack[MiddlewareOptions]) -> TestTimeScaling:
        """Return one whose agent has a node for a person, where one is to be asked."""
        further = as_escalation("TestTimeScaling", options.get("escalate"))
        asks = isinstance(further, Escalation) and further.person
        return super().__new__(_AskingPerson if asks and cls is TestTimeScaling else cls)

    def __init__(self, *placed: Never, **options: Unpack[MiddlewareOptions]) -> None:
        super().__init__()
        check_placed("TestTimeScaling(", placed)
        given: dict[str, Any] = {**options}
        name: str = given.pop("name", "TestTimeScaling")
        self._name = name
        self._n, self._profile = given.pop("n", None), given.pop("profile", None)
        self._when_exhausted = given.pop("when_exhausted", "raise")
        if self._when_exhausted not in ("raise", "end"):
            raise ConfigurationError(
                f"TestTimeScaling: when_exhausted={self._when_exhausted!r} is not known; use 'raise' or 'end'"
            )
        concurrency, revision = given.pop("concurrency", None), given.pop("revision", None)
        check_names("TestTimeScaling", options, MiddlewareOptions.__annotations__)
        given["verifier"] = as_verifier(name, given.get("verifier"))
        given["escalate"] = as_escalation(name, given.get("escalate"))
        self._base = SearchSettings().changed(name, given)
        self._model = MeteredModel(name, concurrency, no_steps=_NO_STEPS)
        if revision is not None and not callable(revision):
            raise ConfigurationError(f"{name}: revision={revision!r} must be a function of (problem, attempts)")
        self._carrier = Inside("messages", Turns() if revision is None else Function(revision))
        self._settings({})

    @property
    def name(self) -> str:
        """What tells it from others of its kind in one agent."""
        return self._name

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any]:
        """A run begins: nothing is spent. A run that was interrupted does not begin again when it goes on."""
        return {"tts_spent": {self._name: {}}}

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> Answer:
        """The best of several responses, through the model's synchronous methods."""

        def searched(messages: Any, config: RunnableConfig) -> Answer:
            search = self._search(request, commands, config, messages, sync=True)
            with setting((_AROUND, search.input.runtime)):
                result = search.run()
            answer = self._answer(request, search, result, commands)
            search.show(result, message_of(answer.model_response))
            return answer

        try:
            commands = CommandsApart(handler)
            return RunnableLambda(searched, name=self._name).invoke(messages_of(request))
        except BudgetExhausted as error:
            return self._end(error)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> Answer:
        """The best of several responses, through the model's asynchronous methods."""

        async def searched(messages: Any, config: RunnableConfig) -> Answer:
            search = self._search(request, commands, config, messages, sync=False)
            with setting((_AROUND, search.input.runtime)):
                result = await search.arun()
            answer = self._answer(request, search, result, commands)
            await search.ashow(result, message_of(answer.model_response))
            return answer

        try:
            commands = CommandsApart(handler)
            return cast(Answer, await RunnableLambda(searched, name=self._name).ainvoke(messages_of(request)))
        except BudgetExhausted as error:
            return self._end(error)

    def _search(
        self,
        request: ModelRequest[Any],
        commands: CommandsApart,
        config: RunnableConfig,
        messages: list[AnyMessage],
        *,
        sync: bool,
    ) -> Search:
        def invoke(asked: ModelRequest[Any]) -> Answered:
            handler, own = commands.for_candidate()
            return Answered.of(handler(varied_request(asked)), own)

        async def ainvoke(asked: ModelRequest[Any]) -> Answered:
            handler, own = commands.for_candidate()
            return Answered.of(await handler(varied_request(asked)), own)

        settings = self._settings(config)
        check_sampling(self._name, settings, temperatures_of(leaves_of(request.model, request.model_settings)))
        runtime = request.runtime if shows_candidates(config) else silent(request.runtime)
        inner = dataclasses.replace(request, model=candidates_of(request.model), runtime=runtime)
        manager = get_callback_manager_for_config(config) if sync else get_async_callback_manager_for_config(config)
        return Search(
            model=self._model,
            # The handler takes no config: it finds the candidate's in its context.
            target=Target(
                name=self._name,
                input=inner,
                carrier=self._carrier,
                invoke=lambda asked, _: invoke(asked),
                ainvoke=lambda asked, _: ainvoke(asked),
                bound=request.model,
                arguments=request.model_settings,
            ),
            problem=problem_of(messages, request=request, tools=list(request.tools)),
            settings=self._left(settings, request),
            runs=Runs(manager, config, messages),
            shown=message_of,
            unparsed=unparsed,
        )

    def _settings(self, config: Any) -> SearchSettings:
        settings = resolve(self._name, self._base, n=self._n, profile=self._profile, config=config)
        check_strategy(self._name, settings.strategy, self._carrier, _NO_STEPS)
        return settings

    def _left(self, settings: SearchSettings, request: ModelRequest[Any]) -> SearchSettings:
        """The settings with what the run has left."""
        if not isinstance(settings.budget, Budget):
            return settings
        if _inside(request):  # each candidate would have all of it: what others spent is not in its state
            raise ConfigurationError(
                f"{self._name}: budget={settings.budget!r} cannot hold inside another TestTimeScaling, since its "
                "candidates each run this one; give it to the one that stands first in the list, which pays for both"
            )
        state: Any = request.state
        spent = (state.get("tts_spent") or {}).get(self._name) or {}
        left = {name: limit - spent.get(name, 0) for name, limit in settings.budget.to_dict().items()}
        if gone := sorted(name for name, amount in left.items() if amount <= 0):
            raise BudgetExhausted(
                f"{self._name}: the budget of this run ({settings.budget.to_dict()}) has no {gone[0]} left; raise it"
            )
        return dataclasses.replace(settings, budget=Budget(**left))

    def _answer(self, request: ModelRequest[Any], search: Search, result: Result, commands: CommandsApart) -> Answer:
        kept = self._withheld(search, result) if result.abstained is not None else self._kept(search, result, commands)
        if _inside(request):
            return ExtendedModelResponse(model_response=kept)  # the one around it tells what all candidates spent
        state: Any = request.state
        spent = _added((state.get("tts_spent") or {}).get(self._name) or {}, result.usage)
        return ExtendedModelResponse(model_response=kept, command=Command(update={"tts_spent": {self._name: spent}}))

    def _kept(self, search: Search, result: Result, commands: CommandsApart) -> ModelResponse[Any]:
        sample = search.sample_of(result.best)
        assert sample is not None
        response, message = sample.output, result.output
        commands.apply(response.commands)
        messages = [charged(summarised(m, result, search.details)) if m is message else m for m in response.result]
        return ModelResponse(result=messages, structured_response=response.structured_response)

    def _withheld(self, search: Search, result: Result) -> ModelResponse[Any]:
        """An empty message: neither the tools nor the commands of a candidate that is not sure enough are used."""
        assert result.abstained is not None
        message = charged(summarised(withheld(result.abstained), result, search.details))
        return ModelResponse(result=[message.model_copy(update={"id": f"tts-{uuid.uuid4()}"})])

    def _end(self, error: BudgetExhausted) -> Answer:
        if self._when_exhausted == "raise":
            raise error
        message = AIMessage(
            "I had to stop: the budget of this run has no room for another model call.",
            response_metadata={"tts": {"stopped": "budget", "reason": str(error)}},
        )
        return ExtendedModelResponse(model_response=ModelResponse(result=[message]))


class _AskingPerson(TestTimeScaling):
    """It has a hook of its own, and with it a node in the agent's graph, which others do not need."""

    def after_model(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """Ask a person for an answer that was withheld."""
        return ask_person(self.name, state["messages"])


def _inside(request: ModelRequest[Any]) -> bool:
    return _AROUND.get() is request.runtime


def _added(spent: Mapping[str, float], usage: Usage) -> dict[str, float]:
    """The sum; without `usd` where the price of any call is unknown."""
    given = {name: getattr(usage, name) for name in LIMITS if not spent or name in spent}
    return {name: spent.get(name, 0) + amount for name, amount in given.items() if amount is not None}
