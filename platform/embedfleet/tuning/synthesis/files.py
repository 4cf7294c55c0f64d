"""What a synthesis leaves in its folder besides the journal: examples, rejections, a report.

Each file is written whole beside its place and moved there, so that none is ever half new. The
same answers give the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from embedfleet.durable import replacing
from embedfleet.tuning.examples import Example, example_line
from embedfleet.tuning.synthesis.filtering import Judged
from embedfleet.tuning.synthesis.report import Report
from embedfleet.tuning.synthesis.settings import Instructions
from embedfleet.tuning.synthesis.steps import Rejection

__all__ = ["EXAMPLES", "REJECTED", "REPORT", "write_examples", "write_rejected", "write_report"]

EXAMPLES: Final = "examples.jsonl"
REJECTED: Final = "rejected.jsonl"
REPORT: Final = "report.json"


def write_examples(folder: Path, kept: Iterable[Judged], instructions: Instructions) -> None:
    """Write the training examples, in the order of passages.

    Raises:
        OSError: There is no room or no right.
    """
    _write(folder / EXAMPLES, (example_line(_example(each, instructions)) for each in kept))


def write_rejected(folder: Path, rejected: Iterable[Rejection]) -> None:
    """Write what did not become an example, each with its reason, in the order of passages.

    Raises:
        OSError: There is no room or no right.
    """
    lines = (json.dumps(_rejection(each), ensure_ascii=False) for each in rejected)
    _write(folder / REJECTED, lines)


def write_report(folder: Path, report: Report) -> None:
    """Write the report.

    Raises:
        OSError: There is no room or no right.
    """
    _write(folder / REPORT, [json.dumps(report.as_json(), ensure_ascii=False, indent=2)])


def _example(judged: Judged, instructions: Instructions) -> Example:
    draft = judged.draft
    return Example(
        query=draft.query,
        positives=(draft.draw.passage.text,),
        instruction=instructions.of(draft.chosen.task),
        task=str(draft.chosen.task),
        language=draft.language,
    )


def _rejection(rejection: Rejection) -> dict[str, Any]:
    record: dict[str, Any] = {
        "reason": str(rejection.reason),
        "said": rejection.said,
        "query": rejection.query,
        "passage": rejection.draw.passage.text,
    }
    if rejection.chosen is not None:
        record["task"] = str(rejection.chosen.task)
    if rejection.language:
        record["language"] = rejection.language
    if rejection.cosine is not None:
        record["cosine"] = rejection.cosine
    return record


def _write(path: Path, lines: Iterable[str]) -> None:
    with replacing(path) as file:
        file.writelines(line + "\n" for line in lines)
