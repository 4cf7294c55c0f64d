"""Tasks of mteb by their own code: data, prompts by task, main score.

mteb tells no value by query, so these scores have no bounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from embedfleet.errors import FetchFailed, InvalidRequest
from embedfleet.evaluation.extra import needed
from embedfleet.evaluation.mteb_model import MtebEmbedder
from embedfleet.evaluation.settings import Candidate, Settings

__all__ = ["find_tasks", "run_tasks"]


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


def run_tasks(
    tasks: Sequence[Any], candidates: Sequence[Candidate], settings: Settings
) -> list[dict[str, object]]:
    """Run every task with every embedder.

    Args:
        tasks: Of mteb.
        candidates: Embedders.
        settings: Engine options and the limit of documents.

    Returns:
        By model, task, split and subset: the main score, as reports hold it.

    Raises:
        FetchFailed: A task's data cannot be loaded.
    """
    records: list[dict[str, object]] = []
    for candidate in candidates if tasks else ():
        model = MtebEmbedder(
            candidate.source,
            max_document_tokens=settings.max_document_tokens,
            options=settings.options,
        )
        try:
            for task in tasks:
                _load(task)
                records.extend(_run(task, model, candidate.label))
        finally:
            model.close()
    return records


def _load(task: Any) -> None:
    try:
        task.load_data()
    except (OSError, RuntimeError) as error:  # the hub's and the data library's own are OSErrors
        raise FetchFailed(
            f"The data of mteb's task {task.metadata.name} cannot be loaded: {error}. Check the "
            "network, or measure a folder with --data."
        ) from error


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
