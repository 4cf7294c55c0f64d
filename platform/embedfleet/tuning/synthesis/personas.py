"""Who might look for a passage: from a file, or a small list of people who look for anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from embedfleet.errors import InvalidRequest
from embedfleet.tuning.synthesis.settings import PersonaSettings

__all__ = ["BUILT_IN", "read_personas"]

_FIELD: Final = "persona"
_MAX_CHARACTERS: Final = 1_000

BUILT_IN: Final[tuple[str, ...]] = (
    "A nurse on night shifts who reads up on what she saw at work",
    "A retired engineer who repairs radios",
    "A schoolgirl of twelve who prepares a talk",
    "A lawyer who has one hour before a hearing",
    "A software developer who is new to a large code base",
    "A system administrator whose server has just failed",
    "A farmer who plans next year's fields",
    "A doctoral student who looks for a gap in the literature",
    "A journalist who checks a claim before it is printed",
    "A shop owner who does the accounts alone",
    "A father of three who plans a journey",
    "A cook who wants to know why a recipe works",
    "A librarian who answers other people's questions",
    "A data analyst who has to explain a number to the board",
    "A patient who wants to understand a diagnosis",
    "A history teacher who collects sources for a lesson",
    "An electrician who must follow a regulation",
    "A translator who needs the exact term",
    "A product manager who compares what competitors do",
    "A hobby astronomer with a small telescope",
    "A civil servant who drafts a reply to a citizen",
    "A runner who trains for the first marathon",
    "A security researcher who looks for a weakness",
    "A musician who also records and mixes",
    "A chemist in a small laboratory",
    "A student in the week before an examination",
    "An investor who reads reports with suspicion",
    "A gardener with a wet and shady plot",
    "A novelist who wants details to be right",
    "A mechanic who works on old motorcycles",
    "A volunteer who helps newcomers with forms",
    "A statistician who reviews other people's methods",
    "A ship's officer on long voyages",
    "A parent whose child has just been diagnosed with an allergy",
    "An architect who renovates old houses",
    "A support agent who has the customer on the line",
    "A pensioner who has bought the first smartphone",
    "A philosopher who distrusts simple answers",
    "A biologist who counts birds at weekends",
    "A beginner who learns to program in the evening",
)


def read_personas(settings: PersonaSettings) -> tuple[str, ...]:
    """Read the personas, each once, in the order of the file.

    Raises:
        InvalidRequest: A line is no persona, or there are fewer than are offered at once.
        OSError: The file cannot be read.
    """
    if settings.file is None:
        found = BUILT_IN
    else:
        path = Path(settings.file).expanduser()
        found = tuple(dict.fromkeys(_lines(path)))
    if len(found) < settings.candidates:
        raise InvalidRequest(
            f"personas.candidates is {settings.candidates}, but there are {len(found)} personas. "
            "Lower it, or give a file with more.",
            field="personas.candidates",
        )
    return found


def _lines(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{path} is not UTF-8 at byte {error.start}. Save it as UTF-8.", field="personas.file"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        persona = _field(line, where) if path.suffix == ".jsonl" else line
        persona = " ".join(persona.split())
        if not 0 < len(persona) <= _MAX_CHARACTERS:
            raise InvalidRequest(
                f"{where} has a persona of {len(persona)} characters; 1 to {_MAX_CHARACTERS} are "
                "allowed. Shorten it or remove it.",
                field="personas.file",
            )
        yield persona


def _field(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not JSON: {error}. Mend the line.") from error
    persona = record.get(_FIELD) if isinstance(record, dict) else None
    if not isinstance(persona, str):
        raise InvalidRequest(f"{where} has no text in field {_FIELD!r}. Add it.")
    return persona
