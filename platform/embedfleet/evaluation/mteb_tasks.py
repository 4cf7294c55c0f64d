"""Tasks of mteb by their own code: data, prompts by task, main score.

mteb tells no value by query, so these scores have no bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from embedfleet.errors import EmbedfleetError, EngineError, FetchFailed, InvalidRequest
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.mteb_model import MtebEmbedder
from embedfleet.evaluation.settings import Candidate, Settings

__all__ = ["TaskScores", "find_tasks", "load_tasks", "run_tasks"]


@dataclass(frozen=True, slots=True)
class TaskScores:
    """What tasks gave.

    Attributes:
        records: By model, task, split and subset: the main score, as reports hold it.
        failure: What ended it early; None if every task was run.
    """

    records: tuple[dict[str, object], ...] = ()
    failure: EmbedfleetError | None = None


def find_tasks(names: Sequence[str]) -> list[Any]:
    """Find tasks by name.

    Raises:
        InvalidRequest: mteb has none of that name.
        Unsupported: mteb is not installed.
    """
    if not names:
        return []
    mteb = needed("mteb")
    known = {task.metadata.name: task for task in mteb.get_tasks(modalities=["text"])}
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=3)
            hint = f"Did you mean {', '.join(close)}?" if close else "See mteb's list of tasks."
            raise InvalidRequest(f"mteb has no task of text called {name!r}. {hint}", field="mteb")
    return [known[name] for name in names]


def load_tasks(tasks: Sequence[Any]) -> None:
    """Load the data of every task, before anything is computed.

    Raises:
        FetchFailed: A task's data cannot be loaded.
    """
    for task in tasks:
        try:
            task.load_data()
        except (OSError, RuntimeError) as error:  # the hub's and the data library's are OSErrors
            raise FetchFailed(
                f"The data of mteb's task {task.metadata.name} cannot be loaded: {error}. Check "
                "the network, or measure a folder with --data."
            ) from error


def run_tasks(
    tasks: Sequence[Any], candidates: Sequence[Candidate], settings: Settings
) -> TaskScores:
    """Run every task with every embedder, up to the first that fails.

    Args:
        tasks: Of mteb.
        candidates: Embedders.
        settings: Engine options and the limit of documents.
    """
    records: list[dict[str, object]] = []
    try:
        for candidate in candidates if tasks else ():
            _run_all(tasks, candidate, settings, records)
    except EmbedfleetError as failure:
        return TaskScores(tuple(records), failure)
    return TaskScores(tuple(records))


def _run_all(
    tasks: Sequence[Any],
    candidate: Candidate,
    settings: Settings,
    records: list[dict[str, object]],
) -> None:
    """Add the scores of each task with one embedder as they come."""
    model = MtebEmbedder(
        candidate.source,
        max_document_tokens=settings.max_document_tokens,
        options=settings.options,
    )
    try:
        for task in tasks:
            try:
                records.extend(_run(task, model, candidate.label))
            except EmbedfleetError:
                raise
            except Exception as error:  # a task's code is mteb's, and may raise anything
                raise EngineError(
                    f"mteb's task {task.metadata.name} failed with {candidate.label}: "
                    f"{type(error).__name__}: {error}. Leave it out, or ask mteb about it."
                ) from error
    finally:
        model.close()


def _run(task: Any, model: MtebEmbedder, label: str) -> list[dict[str, object]]:
    mteb = needed("mteb")
    result = mteb.evaluate(model, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return [
        {
            "model": label,
            "task": task.metadata.name,
            "type": task.metadata.type,
            "split": split,
            "subset": scores["hf_subset"],
            "measure": task.metadata.main_score,
            "value": float(scores["main_score"]),
        }
        for task_result in result.task_results
        for split, subsets in task_result.scores.items()
        for scores in subsets
    ]
