"""LangChain's ChatOpenAI: only the base URL is changed."""

import os

from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="vote/loopback", base_url=os.environ["BASE_URL"], api_key="-")

message = model.invoke("What is 17 + 25?")
print("invoke:", message.content, message.usage_metadata)
print("stream:", "".join(chunk.content for chunk in model.stream("What is 17 + 25?")))


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


print("tool call:", model.bind_tools([add]).invoke("What is 17 + 25?").tool_calls)
