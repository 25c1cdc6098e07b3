"""A report's colours are told apart without red, green or blue too, and what is written on them can be read."""

from __future__ import annotations

import math
import re
from importlib.resources import files
from itertools import combinations

import pytest

# Machado, Oliveira & Fernandes 2009, severity 1, in linear RGB.
EYES = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "no red": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "no green": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "no blue": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
# Ottosson 2020: distances in Oklab are as the eye has them; black to white is 1, and 0.02 is hardly seen side by side.
CONES = ((0.4122, 0.5363, 0.0514), (0.2119, 0.6807, 0.1074), (0.0883, 0.2817, 0.6300))
LAB = ((0.2105, 0.7936, -0.0041), (1.9780, -2.4286, 0.4506), (0.0259, 0.7828, -0.8087))
Vector = tuple[float, ...]


def times(matrix: tuple[Vector, ...], vector: Vector) -> Vector:
    return tuple(sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix)


def linear(colour: str) -> Vector:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return tuple(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)


def seen(colour: str, eye: str) -> Vector:
    light = tuple(min(max(c, 0.0), 1.0) for c in times(EYES[eye], linear(colour)))
    return times(LAB, tuple(math.cbrt(c) for c in times(CONES, light)))


def contrast(a: str, b: str) -> float:
    """As WCAG 2 has it."""
    low, high = sorted(times(((0.2126, 0.7152, 0.0722),), linear(c))[0] for c in (a, b))
    return (high + 0.05) / (low + 0.05)


def theme(name: str) -> dict[str, str]:
    sheets = [files("tts_plugins").joinpath(*path).read_text("utf-8")
              for path in (("_trace", "page.css"), ("bench", "report", "report.css"))]  # fmt: skip
    roots = [re.findall(r":root \{(.*?)\}", sheet, re.DOTALL)[0 if name == "light" else 1] for sheet in sheets]
    found = re.findall(r"--(\w+): (#\w+);", " ".join(roots))
    return {key: value if len(value) == 7 else "#" + "".join(c * 2 for c in value[1:]) for key, value in found}


@pytest.mark.parametrize("name", ["light", "dark"])
@pytest.mark.parametrize("eye", EYES)
def test_strategies_and_outcomes_are_told_apart(name: str, eye: str) -> None:
    colours = theme(name)
    for family, count, least in (("s", 8, 0.05), ("o", 5, 0.08)):
        found = {key: seen(colours[key], eye) for key in (f"{family}{i}" for i in range(count))}
        for a, b in combinations(found, 2):
            assert math.dist(found[a], found[b]) > least, (a, b)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_no_outcome_has_the_colour_of_a_strategy(name: str) -> None:
    colours = {key: seen(value, "all colours") for key, value in theme(name).items()}
    for a in (f"s{i}" for i in range(8)):
        for b in (f"o{i}" for i in range(5)):
            assert math.dist(colours[a], colours[b]) > 0.1, (a, b)


@pytest.mark.parametrize("name", ["light", "dark"])
def test_what_is_written_on_a_colour_can_be_read(name: str) -> None:
    colours = theme(name)
    for i in range(8):
        assert contrast(colours[f"s{i}"], colours["bg"]) > 4.4, i
    ink = {"o0": "#0f1318", "o1": "#0f1318", "o2": colours["fg"], "o3": colours["fg"], "o4": colours["bg"]}
    for part, text in ink.items():
        assert contrast(colours[part], text) > 4, part
