"""A synthesis from settings to files: gather, estimate, ask, filter, write.

Each part can be had alone, so that whoever runs it can show the estimate and ask a person between
the second and the third.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from embedfleet.tuning.synthesis.calling import Caller, Unanswered
from embedfleet.tuning.synthesis.chat import Chat
from embedfleet.tuning.synthesis.costs import Estimate, counter_of, estimate
from embedfleet.tuning.synthesis.drawing import Draw, draws_of
from embedfleet.tuning.synthesis.files import write_examples, write_rejected, write_report
from embedfleet.tuning.synthesis.filtering import Advance, cosines, keep_close, without_repeats
from embedfleet.tuning.synthesis.journal import Journal
from embedfleet.tuning.synthesis.passages import Passages, read_passages
from embedfleet.tuning.synthesis.personas import read_personas
from embedfleet.tuning.synthesis.reading import read_key
from embedfleet.tuning.synthesis.report import Counts, Report, report_of, spending_of
from embedfleet.tuning.synthesis.settings import SynthesisSettings
from embedfleet.tuning.synthesis.steps import Draft, Rejection, synthesize_query

if TYPE_CHECKING:
    # What loads a tensor library waits until there is something to compare.
    from embedfleet.engine.local import LocalEmbedder

__all__ = ["Asked", "Synthesis", "ask", "finish", "gather"]


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Everything that is known before anything is asked.

    Attributes:
        key: Of the endpoint; None where it needs none.
    """

    settings: SynthesisSettings
    passages: Passages
    personas: tuple[str, ...]
    key: str | None

    @property
    def folder(self) -> Path:
        """Where journal and results lie."""
        return Path(self.settings.output_folder).expanduser()

    def draws(self) -> Iterator[Draw]:
        """Yield every query to be written, in order."""
        for each in draws_of(self.passages.used, self.personas, self.settings):
            if each.tasks:
                yield each

    def estimate(self, journal: Journal) -> Estimate:
        """Tell what is still to be asked.

        Raises:
            CheckpointError: The tokenizer that settings name is none.
        """
        return estimate(self.draws(), journal, self.settings, counter_of(self.settings.tokenizer))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the endpoint's answers came to, in the order of passages.

    Attributes:
        num_waiting: Queries without all answers yet.
        stopped: Why nothing more is asked; empty where all was.
    """

    drafts: Sequence[Draft]
    rejected: Sequence[Rejection]
    num_waiting: int
    stopped: str = ""


def gather(settings: SynthesisSettings, environment: Mapping[str, str]) -> Synthesis:
    """Read passages, personas and the key.

    Raises:
        InvalidRequest: A line of a file is not what the settings say.
        SecretMissing: The key is not where the settings say.
        OSError: A file cannot be read.
    """
    key = read_key(settings.endpoint, environment)
    personas = read_personas(settings.personas)
    return Synthesis(settings, read_passages(settings.passages), personas, key)


async def ask(
    synthesis: Synthesis, journal: Journal, advance: Advance, tell: Callable[[str], None]
) -> Asked:
    """Get an answer to every question, from the journal or from the endpoint.

    Args:
        synthesis: What to ask.
        journal: Takes every answer before it counts.
        advance: Takes how many queries were finished.
        tell: Takes a line about what goes wrong meanwhile.

    Raises:
        EndpointFailed: The endpoint refuses requests, or failed too often in a row.
        OSError: The journal cannot be written.
    """
    settings = synthesis.settings
    found: dict[int, Draft | Rejection] = {}
    waiting: Counter[str] = Counter()
    draws = enumerate(synthesis.draws())
    async with Chat(settings.endpoint, synthesis.key) as chat:
        caller = Caller(settings, chat, journal, tell)

        async def work() -> None:
            for place, draw in draws:
                if caller.failure is not None:
                    return
                try:
                    found[place] = await synthesize_query(draw, caller)
                except Unanswered as unanswered:
                    waiting[str(unanswered)] += 1
                advance(1)

        async with asyncio.TaskGroup() as group:
            for _ in range(settings.endpoint.concurrency):
                group.create_task(work())
    if caller.failure is not None:
        raise caller.failure
    results = [found[place] for place in sorted(found)]
    stopped = caller.budget_reached or "; ".join(waiting)
    return _asked(results, waiting.total(), stopped)


def finish(
    synthesis: Synthesis,
    asked: Asked,
    journal: Journal,
    embedder: LocalEmbedder,
    advance: Advance,
) -> Report:
    """Filter the drafts and write examples, rejections and the report.

    Raises:
        InvalidRequest: A text that the embedder cannot take.
        OSError: There is no room for the files.
    """
    settings = synthesis.settings
    drafts, repeated = without_repeats(asked.drafts)
    measured = cosines(drafts, embedder, settings.instructions, advance)
    kept, far = keep_close(drafts, measured, settings.filter.min_cosine)
    rejected = [*asked.rejected, *repeated, *far]
    rejected.sort(key=_order(synthesis))
    num_fitting = sum(1 for _ in synthesis.draws())
    skipped = Counter(synthesis.passages.skipped)
    num_all = len(synthesis.passages.used) * settings.queries_per_passage
    skipped["no-task-fits"] += (num_all - num_fitting) // settings.queries_per_passage
    counts = Counts(
        len(synthesis.passages.used), +skipped, num_fitting, asked.num_waiting, asked.stopped
    )
    spending = spending_of(journal, settings.prices)
    report = report_of(counts, kept, rejected, settings, spending)
    write_examples(synthesis.folder, kept, settings.instructions)
    write_rejected(synthesis.folder, rejected)
    write_report(synthesis.folder, report)
    return report


def _asked(results: Sequence[Draft | Rejection], num_waiting: int, stopped: str) -> Asked:
    return Asked(
        [each for each in results if isinstance(each, Draft)],
        [each for each in results if isinstance(each, Rejection)],
        num_waiting,
        stopped,
    )


def _order(synthesis: Synthesis) -> Callable[[Rejection], tuple[int, int]]:
    places = {each.name: place for place, each in enumerate(synthesis.passages.used)}
    return lambda rejection: (
        places[rejection.draw.passage.name],
        rejection.draw.number,
    )
