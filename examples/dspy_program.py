"""A DSPy program, asked once and then scaled: a metric without answers picks the best of several predictions.

pip install 'tts-plugins[dspy,local]'
python examples/dspy_program.py                      # the embedded model, fetched once (93 MB)
python examples/dspy_program.py --base-url http://127.0.0.1:8000/v1 --model qwen3-4b
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager

import dspy
from tts_plugins_dspy import Scaled

from tts_plugins import BestOfN, Budget
from tts_plugins.models import LocalModel
from tts_plugins.stopping import Threshold


class Headline(dspy.Signature):
    """Write a headline for the news, in at most seven words."""

    news: str = dspy.InputField()
    headline: str = dspy.OutputField()


class Plain(dspy.Adapter):
    """For models too small for DSPy's own formats: the answer, as it comes, is the one output field."""

    def format(self, signature, demos, inputs):
        asked = "\n".join(f"{name}: {value}" for name, value in inputs.items())
        return [{"role": "system", "content": signature.instructions}, {"role": "user", "content": asked}]

    def parse(self, signature, completion):
        (field,) = signature.output_fields
        return {field: completion.strip().strip('"')}


NEWS = "The city of Ghent opened a bridge for bicycles over the Leie on Monday, after three years of work."


def fits(example, prediction, trace=None):
    """The share of the rules that a headline keeps, and which it breaks."""
    text = prediction.headline.strip()
    rules = {
        "too long": len(text.split()) <= 7,
        "does not name the city": "Ghent" in text,
        "does not say what": "bridge" in text.lower(),
        "ends like a sentence": not text.endswith("."),
    }
    broken = [what for what, kept in rules.items() if not kept]
    return dspy.Prediction(score=1 - len(broken) / len(rules), feedback="; ".join(broken))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", help="any OpenAI-compatible server; the embedded model where left out")
    parser.add_argument("--model", default="local")
    parser.add_argument("--api-key", default="-")
    parser.add_argument("-n", type=int, default=8)
    given = parser.parse_args()
    with server(given.base_url) as base_url:
        lm = dspy.LM(
            f"openai/{given.model}", api_base=base_url, api_key=given.api_key, temperature=0.9, max_tokens=60,
            num_retries=0, cache=False,
        )  # fmt: skip
        dspy.configure(lm=lm, adapter=Plain())
        program = dspy.Predict(Headline)
        print("asked once: ", program(news=NEWS).headline)

        scaled = Scaled(
            program,
            strategy=BestOfN(n=given.n, stop=Threshold(1.0)),  # the first that keeps every rule is enough
            verifier=fits,
            budget=Budget(calls=given.n, tokens=8_000),
        )
        result = scaled.solve(news=NEWS)  # scaled(news=NEWS) gives the prediction alone
        print(f"best of {len(result.candidates)}: ", result.output.headline)
        print(f"score {result.score:.2f}, {result.usage.calls} calls, {result.usage.tokens} tokens, {result.stopped}")
        print(result.trace.tree())
        getattr(lm, "close", lambda: None)()  # models before DSPy 3.4 have nothing to close


@contextmanager
def server(base_url: str | None) -> Iterator[str]:
    """An address to talk to: the given one, or the embedded model's own."""
    if base_url is not None:
        yield base_url
    else:
        with LocalModel() as local:
            yield local.base_url


if __name__ == "__main__":
    main()
