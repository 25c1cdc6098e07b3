"""The benchmark's parts in their short form: they run, and what is not a timing holds."""

from __future__ import annotations

import pytest

from benchmarks._ray import budget, driver
from benchmarks._rows import table

pytestmark = pytest.mark.usefixtures("cluster")


def test_four_workers_race_for_one_budget() -> None:
    row = budget.race_row(150)
    assert row.figures["over"] <= 0 and row.figures["used"] >= 0.99 and row.figures["messages"] <= 120, table([row])


def test_the_driver_streams_and_the_units_are_measured() -> None:
    assert len(driver.memory_row(500).figures["megabytes"]) == 10
    assert budget.unit_row(20).figures["result_bytes"] > 0
