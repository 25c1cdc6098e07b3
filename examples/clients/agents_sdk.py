"""The OpenAI Agents SDK with a tool, over Responses: only the base URL is changed."""

import asyncio
import os

from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    print(f"the tool: add({a}, {b})")
    return a + b


async def main() -> None:
    set_tracing_disabled(True)
    async with AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key="-") as client:
        model = OpenAIResponsesModel(model="vote/loopback", openai_client=client)
        agent = Agent(name="adder", instructions="Use the tool.", model=model, tools=[add])
        result = await Runner.run(agent, "What is 17 + 25?")
        print("the agent:", result.final_output)
        print("turns:", len(result.raw_responses), "tokens in all:", result.context_wrapper.usage.total_tokens)


asyncio.run(main())
