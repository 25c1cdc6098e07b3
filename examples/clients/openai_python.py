"""The openai package of Python: only the base URL is changed."""

import os

import openai

client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key="-")
question = "What is 17 + 25?"

completion = client.chat.completions.create(model="vote/loopback", messages=[{"role": "user", "content": question}])
print("chat:", completion.choices[0].message.content, completion.usage.total_tokens, "tokens in all")
print("the search:", completion.model_extra["tts"])

with client.responses.stream(model="vote/loopback", input=question) as events:
    print("responses, streamed:", events.get_final_response().output_text)

small = {"tts": {"n": 8, "budget": {"tokens": 300}}}
narrow = client.chat.completions.create(
    model="loopback", messages=[{"role": "user", "content": question}], max_tokens=8, extra_body=small
)
print("eight samples in 300 tokens:", narrow.model_extra["tts"]["candidates"], narrow.model_extra["tts"]["stopped"])
try:
    client.chat.completions.create(model="vot", messages=[{"role": "user", "content": question}])
except openai.NotFoundError as error:
    print("refused:", error.message)
