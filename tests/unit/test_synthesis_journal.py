"""The journal: what is on disk, what a kill leaves of it, and what cannot be one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.tuning.synthesis.endpoint_settings import ResponseFormat
from embedfleet.tuning.synthesis.journal import FILE_NAME, Journal
from embedfleet.tuning.synthesis.replies import Completion, Ending

ANSWERS = [
    Completion("first", Ending.STOP, 7, 3),
    Completion("line\nend, ünïcode \U0001f680", Ending.CUT_OFF, 5, 2, counted=False),
    Completion("HTTP 400: no", Ending.NOT_TAKEN),
]


async def filled(folder: Path) -> Path:
    with Journal.open(folder) as journal:
        for number, each in enumerate(ANSWERS):
            await journal.keep(f"key-{number}", "passage", "choose", each)
        await journal.keep_failure("key-9", 503, "HTTP 503: gone")
        await journal.keep_format(ResponseFormat.JSON_OBJECT)
    return folder / FILE_NAME


async def test_all_of_it_comes_back(tmp_path: Path) -> None:
    await filled(tmp_path / "a" / "b")
    with Journal.open(tmp_path / "a" / "b") as journal:
        assert [journal.answer(f"key-{number}") for number in range(3)] == ANSWERS
        assert journal.answer("key-9") is None
        assert journal.response_format is ResponseFormat.JSON_OBJECT
        spent = journal.spent
        assert (spent.num_requests, spent.num_failures, spent.num_uncounted) == (4, 1, 1)
        assert (spent.prompt_tokens, spent.completion_tokens) == (12, 5)


async def test_a_line_is_on_disk_before_the_answer_counts(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        await journal.keep("key", "passage", "choose", ANSWERS[0])
        (line,) = (tmp_path / FILE_NAME).read_text().splitlines()
        assert json.loads(line)["said"] == "first"


async def test_any_cut_of_the_last_line_is_borne(tmp_path: Path) -> None:
    path = await filled(tmp_path)
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = sum(map(len, lines[:2]))
    for cut in range(before, before + len(lines[2])):
        path.write_bytes(whole[:cut])
        with Journal.open(tmp_path) as journal:
            assert journal.spent.num_requests == 2
        assert path.read_bytes() == whole[:before]
    # What a power failure can leave: room without content.
    path.write_bytes(whole[:before] + bytes(100))
    with Journal.open(tmp_path) as journal:
        await journal.keep("key-2", "passage", "choose", ANSWERS[2])
    assert path.read_bytes() == b"".join(lines[:3])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{}", "line 2 is not an answer noted here"),
        ("text", "line 2 is not an answer noted here: Invalid JSON"),
        ('{"kind":"other","key":"a","said":"b"}', "kind is 'other'"),
        ('{"kind":"answer","key":"a","said":"b","ending":"late"}', "'late' is not a valid"),
        ('{"kind":"format","key":"","said":"xml"}', "'xml' is not a valid"),
        ('{"kind":"failure","key":"a","said":"b","more":1}', "Extra inputs"),
    ],
)
async def test_a_damaged_line_inside_is_refused(tmp_path: Path, line: str, said: str) -> None:
    path = await filled(tmp_path)
    first, *rest = path.read_text().splitlines()
    damaged = "\n".join([first, line, *rest]) + "\n"
    path.write_text(damaged)
    with pytest.raises(InvalidRequest) as refused:
        Journal.open(tmp_path)
    assert said in refused.value.message
    assert f"{path}, line 2" in refused.value.message
    assert path.read_text() == damaged


async def test_two_runs_do_not_write_one_journal(tmp_path: Path) -> None:
    with (
        Journal.open(tmp_path),
        pytest.raises(Unavailable, match="being written by another run"),
    ):
        Journal.open(tmp_path)
    Journal.open(tmp_path).close()


async def test_what_the_endpoint_refused_can_be_asked_again(tmp_path: Path) -> None:
    await filled(tmp_path)
    with Journal.open(tmp_path) as journal:
        journal.forget_not_taken()
        assert [journal.answer(f"key-{number}") for number in range(3)] == [*ANSWERS[:2], None]


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.replies import Completion

async def main():
    with Journal.open(Path(sys.argv[1])) as journal:
        await journal.keep("a", "p", "choose", Completion("x" * 100))
        for _ in range(2):
            try:
                await journal.keep("b", "p", "choose", Completion("y" * 5000))
            except OSError as error:
                print(error.strerror, error.filename)
        print(journal.answer("b"))

# A file that may not grow answers as a full disk does: half a line, then an error.
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
asyncio.run(main())
"""


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-B", "-c", FULL, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    path = tmp_path / FILE_NAME
    assert done.stdout.splitlines() == [
        f"File too large {path}",
        f"an earlier line could not be written {path}",
        "None",
    ]
    assert [json.loads(line)["key"] for line in path.read_text().splitlines()] == ["a"]
