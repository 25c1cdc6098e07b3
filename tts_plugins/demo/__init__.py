"""The demo: what test-time compute does for a small model on a task that a person would give it."""

from tts_plugins.demo.report import DemoReport, Outcome, Row
from tts_plugins.demo.run import ROWS, DemoEvent, demo_model, run_demo

__all__ = ["ROWS", "DemoEvent", "DemoReport", "Outcome", "Row", "demo_model", "run_demo"]
