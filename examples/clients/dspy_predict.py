"""DSPy: only the base URL is changed."""

import os

import dspy

lm = dspy.LM("openai/vote/loopback", api_base=os.environ["BASE_URL"], api_key="-", cache=False)
with dspy.context(lm=lm):
    print("Predict:", dspy.Predict("question -> answer")(question="What is 17 + 25?"))
