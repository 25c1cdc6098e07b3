from __future__ import annotations

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tts_plugins.bench.grading import by_answer, by_record
from tts_plugins.bench.problems import read_problems
from tts_plugins.bench.training.files import pool_of
from tts_plugins.errors import ConfigurationError, DataError, MissingExtraError
from tts_plugins.pools import PoolCandidate
from tts_plugins.types import Candidate, Problem


def written(path: Path, *lines: object) -> str:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return str(path)


def test_a_file_s_problems_keep_what_was_with_them(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "2 + 2?"}]
    file = written(
        tmp_path / "p.jsonl", {"prompt": "1 + 1?", "answer": 2, "level": 1, "topic": "sums"}, "",
        {"id": "two", "messages": messages, "answer": {"b": 1, "a": 2}},
    )  # fmt: skip
    first, second = read_problems(file).problems
    assert (first.id, first.content, first.metadata) == ("1", "1 + 1?", {"answer": "2", "level": 1, "topic": "sums"})
    assert (second.id, second.messages, second.text) == ("two", messages, "2 + 2?")
    assert by_answer(second, Candidate(second, answer='{"a":2,"b":1}')) is True
    assert len(read_problems(file, limit=1).problems) == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[1]", "line 2: list, but an object is needed"),
        ({"answer": "4"}, 'line 2, prompt: give either "prompt"'),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 'line 2, prompt: give either "prompt"'),
        ({"prompt": ""}, "line 2, prompt: '' must be a text that is not empty"),
        ({"prompt": "   "}, "line 2, prompt: problem: the content is empty"),
        ({"prompt": 4}, "line 2, prompt: 4 must be a text"),
        ({"messages": ["a", {"role": "user"}]}, "line 2, messages: problem: message 0"),
        ({"prompt": "a", "id": True}, "line 2, id: True must be"),
        ({"prompt": "a", "id": "one"}, "id: 'one' occurs twice"),
        ({"prompt": "a \ud800"}, r"line 2: '\\ud800' is half a character"),
        ({"messages": [{"role": "user", "content": "\udfff"}]}, "line 2: .*is half a character"),
        ({"prompt": "a", "more": float("nan")}, "line 2: it has NaN or an infinity"),
        ({"prompt": "a", "more": float("inf")}, "line 2: it has NaN or an infinity"),
        ('{"prompt": "a", "id": ' + "9" * 5000 + "}", r"line 2: not JSON \(Exceeds the limit"),
        ('{"prompt": "a", "more": ' + "[" * 101 + "]" * 101 + "}", "line 2: its values are nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "line 2: its values are nested too deeply"),
        ("null", "line 2: null, but an object is needed"),
    ],
)
def test_a_malformed_line_names_file_line_and_field(tmp_path: Path, line: object, said: str) -> None:
    file = written(tmp_path / "p.jsonl", {"id": "one", "prompt": "a"}, line)
    with pytest.raises(DataError, match=r"p\.jsonl.*" + said):
        read_problems(file)


def test_no_file_and_no_problems_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        read_problems(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="~nobody-of-this-name/x: there is no such file"):
        read_problems("~nobody-of-this-name/x")
    with pytest.raises(ConfigurationError, match="NUL character"):
        read_problems("a\0b")
    with pytest.raises(DataError, match="there are no problems in it"):
        read_problems(written(tmp_path / "p.jsonl", ""))
    with pytest.raises(ConfigurationError, match="limit=0"):
        read_problems(str(tmp_path / "p.jsonl"), limit=0)


def test_grades() -> None:
    asked = Problem("2 + 2?", metadata={"answer": "4"})
    assert by_answer(asked, Candidate(asked, answer="4.0")) is True
    assert by_answer(asked, Candidate(asked, answer="5")) is False
    assert by_answer(asked, Candidate(asked, answer=None)) is False
    assert by_answer(Problem("?"), Candidate(asked, answer="4")) is None
    assert by_record(asked, Candidate(asked, output=PoolCandidate(correct=True))) is True
    assert by_record(asked, Candidate(asked, output="4")) is None


@pytest.mark.skipif(importlib.util.find_spec("datasets") is not None, reason="datasets is installed")
def test_datasets_is_an_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"tts-plugins\[bench\]"):
        read_problems("hf:openai/gsm8k:main")


@pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is not None, reason="reasoning-gym is installed")
def test_reasoning_gym_is_an_extra() -> None:
    with pytest.raises(MissingExtraError, match=r"tts-plugins\[bench\]"):
        read_problems("gym:chain_sum")


def test_a_data_set_s_columns_are_found(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    rows = [{"question": "How many?", "answer": "Two and two.\n#### 4"}, {"question": "And?", "answer": "#### 5"}]
    (tmp_path / "set").mkdir()
    written(tmp_path / "set" / "test.jsonl", *rows)
    found = read_problems(f"hf:{tmp_path / 'set'}", limit=2).problems
    assert [(p.content, p.metadata["answer"]) for p in found] == [("How many?", "4"), ("And?", "5")]
    with pytest.raises(ConfigurationError, match="problems=hf:"):
        read_problems(f"hf:{tmp_path / 'set'}::nowhere")


def test_a_generator_s_answers_are_graded_by_itself() -> None:
    pytest.importorskip("reasoning_gym")
    found = read_problems("gym:chain_sum", limit=5, seed=3)
    again = read_problems("gym:chain_sum", limit=5, seed=3)
    assert [p.content for p in found.problems] == [p.content for p in again.problems]
    p = found.problems[0]
    assert found.grade(p, Candidate(p, answer=p.metadata["answer"])) is True
    assert found.grade(p, Candidate(p, answer="no number")) is False
    assert found.grade(p, Candidate(p, answer=None)) is False
    with pytest.raises(ConfigurationError, match="problems=gym:nothing_of_that_name"):
        read_problems("gym:nothing_of_that_name", limit=2)


def test_problems_come_through_a_pipe_which_can_be_read_once() -> None:
    lines = "".join(json.dumps({"id": str(i), "prompt": f"{i}?" * 99, "answer": "2"}) + "\n" for i in range(99))
    program = "from tts_plugins.bench import read_problems; print(len(read_problems('/dev/stdin').problems))"
    done = subprocess.run([sys.executable, "-c", program], input=lines, capture_output=True, text=True, timeout=60)
    assert done.stdout == "99\n", done.stderr


def test_what_is_looked_at_twice_may_not_be_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pool")
    with pytest.raises(DataError, match="pool: that is a pipe; write what comes from it into a file"):
        pool_of(tmp_path / "pool")


def test_a_gzipped_file_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b'{"id": "a", "prompt": "?", "answer": "1"}\n' * 3))
    packed[12:20] = b"\xff" * 8
    (tmp_path / "torn.jsonl").write_bytes(packed)
    with pytest.raises(DataError, match=r"torn\.jsonl: the file cannot be read: after line 0 it is broken or cut"):
        read_problems(str(tmp_path / "torn.jsonl"))
