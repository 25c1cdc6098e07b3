"""What a trace says: its events as a tree, and what became of them. Pure: a trace's dict in, figures out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tts_plugins._trace.wording import STOPPED, TALLIED, Event, Mark, cut_short, number, oneline, plural, stop_words

# Deeper than this nobody follows an indentation, and a chain of a thousand revisions must not exhaust the stack.
DEEPEST = 24


@dataclass(eq=False)
class Node:
    """An event, what is beneath it, and its place among all events."""

    event: Event
    place: int
    above: Node | None = None
    depth: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def kind(self) -> str:
        """The event's kind; empty where it has none."""
        return str(self.event.get("kind") or "")

    def walk(self) -> Iterator[Node]:
        """It and all beneath it."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def attempt(self) -> int:
        """Which of its siblings of its kind it is, from 1: a failure's attempt."""
        return 1 if self.above is None else self.above.of(self.kind).index(self) + 1

    def of(self, kind: str) -> list[Node]:
        """Its children of one kind."""
        return [child for child in self.children if child.kind == kind]


def forest(events: Iterable[Event], name: Callable[[Event], Any], parent: Callable[[Event], Any]) -> list[Node]:
    """The events as trees; one whose parent did not come before it is a root, so there are no cycles."""
    nodes: dict[Any, Node] = {}
    roots: list[Node] = []
    for place, event in enumerate(events):
        above = None if parent(event) is None else nodes.get(parent(event))
        if above is not None and above.depth >= DEEPEST:
            above = above.above
        node = Node(event, place, above, 0 if above is None else above.depth + 1)
        nodes[name(event)] = node
        (roots if above is None else above.children).append(node)
    return roots


_LONG_START = 0.15  # of the whole time
_UNMADE = ("failed", "out_of_budget", "cancelled")  # requests that brought no candidates


class View:
    """One trace, ready to be read: unfinished ones and kinds that are not known yet included."""

    def __init__(self, trace: Mapping[str, Any]) -> None:
        events = [e for e in trace.get("events") or () if isinstance(e, Mapping)]
        self.trace, self.started = trace, str(trace.get("started") or "")
        roots = forest(events, lambda e: e.get("id"), lambda e: e.get("parent"))
        solve = next((node for node in roots if node.kind == "solve"), None)
        self.top: Event = {} if solve is None else solve.event
        self.nodes = [] if solve is None else list(solve.children)
        self.nodes += [node for node in roots if node is not solve]
        self.candidates = [e for e in events if e.get("kind") == "candidate"]
        self.chosen = self.top.get("chosen")
        self._short = any(e.get("kind") == "budget" for e in events)  # else it was that of a solve inside it
        self.seconds = max((number(e.get(key)) or 0.0 for e in events for key in ("at", "end")), default=0.0)
        # What passes before the first request is the start of a local model: a figure leaves it out.
        asked = [number(e.get("at")) or 0.0 for e in events if e.get("kind") in ("request", "candidate", "score_set")]
        self.begun = min(asked, default=0.0)
        if self.begun < _LONG_START * self.seconds or self.begun >= self.seconds:
            self.begun = 0.0
        self.waves = {id(e): i for i, e in enumerate((e for e in events if e.get("kind") == "wave"), start=1)}
        sets = [e.get("scores") or () for e in events if e.get("kind") == "score_set"]
        self._set_scores = {s.get("candidate"): s.get("score") for scores in sets for s in scores}
        self.winners = self._line_of(self.chosen)

    def all(self) -> Iterator[Node]:
        """Every node but the solve itself."""
        for node in self.nodes:
            yield from node.walk()

    def score(self, candidate: Event) -> float | None:
        """A candidate's score, from its own event or from a verifier that scored all of them together."""
        own = number(candidate.get("score"))
        return number(self._set_scores.get(candidate.get("candidate"))) if own is None else own

    def mark(self, event: Event) -> Mark:
        """What became of a request or a candidate."""
        if self.chosen is not None and event.get("candidate") == self.chosen and event.get("kind") == "candidate":
            return "chosen"
        if event.get("error"):
            if self._short and event.get("kind") == "request" and str(event["error"]).startswith("BudgetExhausted"):
                return "out_of_budget"  # nothing failed: the budget had no room for it
            return "cancelled" if event["error"] in ("cancelled", "CancelledError") else "failed"
        if event.get("pruned"):
            return "pruned"
        return "running" if "end" in event and event["end"] is None else "plain"

    @property
    def outcome(self) -> str:
        """A key of `STOPPED`."""
        if self.top.get("error"):
            return "failed"
        return str(self.top.get("stopped") or "running")

    def moment(self, at: object) -> str:
        """A time since the start, as precise as this trace needs it."""
        given = number(at)
        return "?" if given is None else f"{given:.2f} s" if self.seconds >= 0.1 else f"{given * 1000:.1f} ms"

    @property
    def lineage(self) -> list[Node]:
        """The candidates by which each continues or revises; empty where none does."""
        if not any(c.get("parent_candidate") for c in self.candidates):
            return []
        return forest(self.candidates, lambda e: e.get("candidate"), lambda e: e.get("parent_candidate"))

    @property
    def why(self) -> str:
        """Why it ended, in words."""
        said = STOPPED.get(self.outcome, self.outcome)
        if self.outcome == "failed":
            return f"{said}: " + ": ".join(oneline(self.top[k]) for k in ("error", "message") if self.top.get(k))
        note = next((n.event for n in self.nodes if n.kind == "stop"), None)
        if self.outcome == "stop_rule" and note:
            said = f"{said}: {stop_words(note)}"
        cuts = cut_short(node.event for node in self.nodes)
        return "; ".join(cuts if self.outcome == "complete" and cuts else (said, *cuts))

    @property
    def tally(self) -> str:
        """Return how many candidates came, failed, and were cancelled."""
        counts: dict[str, int] = {}
        for node in self.all():
            mark = self.mark(node.event)
            if node.kind == "candidate":
                counts[mark] = counts.get(mark, 0) + 1
            elif node.kind == "request" and node.event.get("role") == "model" and mark in _UNMADE:
                counts[mark] = counts.get(mark, 0) + int(number(node.event.get("n")) or 1)
        came = sum(counts.get(m, 0) for m in ("chosen", "plain", "pruned"))
        rest = [f"{counts[m]} {word}" for m, word in TALLIED.items() if counts.get(m)]
        return ", ".join([plural(came, "candidate"), *rest])

    def _line_of(self, name: object) -> set[object]:
        parents = {c.get("candidate"): c.get("parent_candidate") for c in self.candidates}
        line: set[object] = set()
        while name is not None and name not in line:
            line.add(name)
            name = parents.get(name)
        return line
