"""Every answer that was paid for, on disk before it is used: a file that only grows.

One JSON object a line, written and synced before the answer counts. What a kill leaves of the last
line is taken off when the file is opened again. One process writes at a time.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.tuning.synthesis.endpoint_settings import ResponseFormat
from embedfleet.tuning.synthesis.replies import Completion, Ending

__all__ = ["FILE_NAME", "Journal", "Spent"]

FILE_NAME: Final = "journal.jsonl"

_KINDS: Final = frozenset({"answer", "failure", "format"})
_REMEDY: Final = "Put back an undamaged copy, or name another folder to begin anew"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: str
    key: str
    said: str
    passage: str = ""
    step: str = ""
    ending: str = ""
    status: int = 0
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0
    counted: bool = True


@dataclass(slots=True)
class Spent:
    """What all runs used, as the journal has it.

    Attributes:
        num_requests: Sent, answered or not, as far as a kill let them be noted.
        num_failures: Of them, those that brought no answer.
        num_uncounted: Answers whose tokens the endpoint did not count: they are estimated.
    """

    num_requests: int = 0
    num_failures: int = 0
    num_uncounted: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Journal:
    """The answers of all runs into one folder, by the key of what was asked."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.spent = Spent()
        self.response_format: ResponseFormat | None = None
        self.steps: Counter[str] = Counter()
        self._answers: dict[str, Completion] = {}
        self._file = file
        self._failed = False
        # One thread: lines come one after the other, and the disk keeps no request waiting.
        self._writer = ThreadPoolExecutor(1, "journal")

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the journal of a folder, or begin one.

        Raises:
            InvalidRequest: A line that is not the last cannot be read.
            Unavailable: Another process writes it.
            OSError: The folder cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE_NAME
        file = path.open("a+b", buffering=0)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Unavailable(
                    f"{path} is being written by another run. Wait for it, or name another folder."
                ) from error
            journal = cls(path, file)
            journal._read()
        except BaseException:
            file.close()
            raise
        return journal

    def close(self) -> None:
        """Finish writing, and let another process write it."""
        self._writer.shutdown()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def answer(self, key: str) -> Completion | None:
        """Give what was answered to a question, in whichever run."""
        return self._answers.get(key)

    def forget_not_taken(self) -> None:
        """Let questions be asked again that the endpoint did not take."""
        for key, completion in list(self._answers.items()):
            if completion.ending is Ending.NOT_TAKEN:
                del self._answers[key]

    async def keep(self, key: str, passage: str, step: str, completion: Completion) -> None:
        """Note an answer; on return it is on disk."""
        await self._append(
            _Record(
                kind="answer",
                key=key,
                said=completion.content,
                passage=passage,
                step=step,
                ending=completion.ending,
                prompt_tokens=completion.prompt_tokens,
                completion_tokens=completion.completion_tokens,
                counted=completion.counted,
            )
        )

    async def keep_failure(self, key: str, status: int, said: str) -> None:
        """Note a request that brought no answer."""
        await self._append(_Record(kind="failure", key=key, status=status, said=said))

    async def keep_format(self, response_format: ResponseFormat) -> None:
        """Note how this endpoint takes wishes for JSON, so that no run has to try again."""
        await self._append(_Record(kind="format", key="", said=response_format))

    async def _append(self, record: _Record) -> None:
        line = record.model_dump_json(exclude_defaults=True).encode() + b"\n"
        written = asyncio.get_running_loop().run_in_executor(self._writer, self._write, line)
        # An answer that is here is written, even if nobody waits for it any more.
        await asyncio.shield(written)
        self._take(record)

    def _write(self, line: bytes) -> None:
        if self._failed:
            raise OSError(0, "an earlier line could not be written", str(self.path))
        end = os.fstat(self._file.fileno()).st_size
        try:
            view = memoryview(line)
            while view:
                view = view[self._file.write(view) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._failed = True
            # Half a line must not stand before a whole one.
            os.ftruncate(self._file.fileno(), end)
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _read(self) -> None:
        self._file.seek(0)
        content_end = 0
        with open(self._file.fileno(), "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                content_end += len(line)
                self._take(self._record(line, number))
        # What a kill left of a line: the request is made again.
        os.ftruncate(self._file.fileno(), content_end)

    def _record(self, line: bytes, number: int) -> _Record:
        try:
            record = _Record.model_validate_json(line)
            if record.kind not in _KINDS:
                raise ValueError(f"kind is {record.kind!r}")
            if record.kind == "answer":
                Ending(record.ending)
            if record.kind == "format":
                ResponseFormat(record.said)
        except (ValidationError, ValueError) as error:
            first: Any = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise InvalidRequest(
                f"{self.path}, line {number} is not an answer noted here: {first}. {_REMEDY}."
            ) from error
        return record

    def _take(self, record: _Record) -> None:
        if record.kind == "format":
            self.response_format = ResponseFormat(record.said)
            return
        self.spent.num_requests += 1
        if record.kind == "failure":
            self.spent.num_failures += 1
            return
        self.steps[record.step] += 1
        self.spent.num_uncounted += not record.counted
        self.spent.prompt_tokens += record.prompt_tokens
        self.spent.completion_tokens += record.completion_tokens
        self._answers[record.key] = Completion(
            record.said,
            Ending(record.ending),
            record.prompt_tokens,
            record.completion_tokens,
            record.counted,
        )
