"""Makes the embedded models: `python -m embedfleet.embedded.recipe FOLDER`, or `make models`.

Gathers data, makes vocabulary and first weights, then runs the commands that anybody has: mine,
tune, merge; writes the reranker around the embedder, and trains what it has of that; evaluates. A
step whose result is there is not done again, so it goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save

from embedfleet.checkpoint.config import CONFIG_FILE
from embedfleet.checkpoint.shards import SINGLE_FILE
from embedfleet.embedded.recipe.distillation import Distillation, distil
from embedfleet.embedded.recipe.first import (
    ask_teacher,
    make_embedder,
    make_reranker,
    make_vocabulary,
)
from embedfleet.embedded.recipe.gather import SOURCES, gather
from embedfleet.embedded.recipe.shapes import config_document
from embedfleet.messages import Role
from embedfleet.tokenization.tokenizer import FILE_NAME as TOKENIZER_FILE

__all__ = ["main", "steps"]

_HERE: Final = Path(__file__).parent
_MERGED_CHECKPOINTS: Final = 3

_NEAREST: Final = ("--negatives", "8", "--margin", "-0.1", "--max-document-tokens", "64")
"""An embedder learns from what its first weights take for the answer."""


@dataclass(frozen=True, slots=True)
class Mining:
    """Negatives for examples of one source.

    Attributes:
        count: Examples that are drawn; None means all.
    """

    source: str
    count: int | None


MINING: Final = (
    Mining("manuals", None),
    Mining("packages", None),
    Mining("docstrings", 15_000),
)

ROUNDS: Final = (Distillation(steps=400, seed=0), Distillation(steps=300, seed=1))
"""The second one begins at the whole learning rate again, with other batches."""

EVALUATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "retrieval": (
        *("--model", "embedder=merged/embedder", "--model", "unmerged=runs/embedder/model"),
        *("--model", "bag=first/embedder", "--ablate", "instruction"),
    ),
    "reranking": (
        *("--model", "embedder=merged/embedder", "--reranker", "reranker=merged/reranker"),
        *("--dimensions", "256", "--output-types", "FLOAT32"),
        *("--max-queries", "300", "--max-document-tokens", "128"),
    ),
}
"""Both stages; the second one for fewer queries, since each costs a hundred pairs."""


def steps(folder: Path) -> Iterator[tuple[str, Path, Callable[[], object]]]:
    """Yield every step: what it does, what it leaves, and how it is done."""
    data, first, merged = folder / "data", folder / "first", folder / "merged"
    yield "gather pairs", data / "sources.json", lambda: gather(data)
    vocabulary = first / Role.RERANKER / TOKENIZER_FILE
    yield "train the vocabulary", vocabulary, lambda: make_vocabulary(data, first)
    taught = first / "taught.npz"
    yield "ask the teacher", taught, lambda: ask_teacher(data, taught)
    bag = first / Role.EMBEDDER
    yield "train the bag of words", bag / SINGLE_FILE, lambda: make_embedder(data, taught, bag)
    for each in MINING:
        mined = folder / "mined" / f"{each.source}.jsonl"
        yield f"mine {each.source}", mined, partial(_mine, folder, each, mined)
    trained = folder / "runs" / Role.EMBEDDER / "model" / SINGLE_FILE
    settings = str(_HERE / f"{Role.EMBEDDER}.yaml")
    train = partial(_run, folder, "tune", Role.EMBEDDER, "-f", settings)
    yield f"train the {Role.EMBEDDER}", trained, train
    embedder, reranker = merged / Role.EMBEDDER, merged / Role.RERANKER
    yield f"merge the {Role.EMBEDDER}", embedder, partial(_merge, folder, embedder)
    written = vocabulary.parent
    write = partial(make_reranker, data, embedder, written)
    yield f"write the {Role.RERANKER}", written / SINGLE_FILE, write
    half = folder / "runs" / Role.RERANKER
    for begun, ended, how in zip((written, half), (half, reranker), ROUNDS, strict=True):
        teach = partial(_distil, folder, begun, ended, how)
        yield f"train the {Role.RERANKER}: {how.steps} steps", ended, teach
    for name, arguments in EVALUATIONS.items():
        measure = partial(_evaluate, folder, name, arguments)
        yield f"evaluate: {name}", folder / f"{name}.json", measure


def main(folder: Path) -> None:
    """Do what is not done yet, then put the models into the package, and note their digests."""
    folder.mkdir(parents=True, exist_ok=True)
    for what, result, do in steps(folder.resolve()):
        if not result.exists():
            sys.stderr.write(f"{what}\n")
            do()
    digests = {role: _install(folder / "merged" / role, role) for role in Role}
    (folder / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "embedfleet", *arguments], cwd=folder, check=True)


def _mine(folder: Path, mining: Mining, target: Path) -> None:
    """Mine negatives for all of a source's examples, or for some that a digest draws."""
    target.parent.mkdir(exist_ok=True)
    examples = folder / "data" / "train" / f"{mining.source}.jsonl"
    if mining.count is not None:
        lines = examples.read_text().splitlines()
        lines.sort(key=lambda line: hashlib.sha256(line.encode()).digest())
        examples = folder / "drawn" / f"{mining.source}-{mining.count}.jsonl"
        examples.parent.mkdir(exist_ok=True)
        examples.write_text("\n".join(lines[: mining.count]) + "\n")
    files = ("--data", str(examples), "--output", str(target))
    _run(folder, "mine", "--model", f"first/{Role.EMBEDDER}", *files, *_NEAREST)


def _merge(folder: Path, target: Path) -> None:
    """Merge the last checkpoints of the embedder's run."""
    checkpoints = sorted((folder / "runs" / Role.EMBEDDER / "checkpoints").glob("step-*"))
    chosen = [str(each) for each in checkpoints[-_MERGED_CHECKPOINTS:]]
    target.parent.mkdir(exist_ok=True)
    _run(folder, "merge", *chosen, "--output", str(target))


def _distil(folder: Path, source: Path, target: Path, settings: Distillation) -> None:
    """Train what a reranker has of the embedder."""
    examples = [folder / "mined" / f"{each.source}.jsonl" for each in MINING]
    distil(source, folder / "merged" / Role.EMBEDDER, examples, target, settings)


def _evaluate(folder: Path, name: str, arguments: tuple[str, ...]) -> None:
    """Measure on everything that was held out, and write report and plot."""
    held_out = [f"data/heldout/{source.name}" for source in SOURCES if source.held_out_share]
    data = [part for each in held_out for part in ("--data", each)]
    files = ("--json", f"{name}.json", "--plot", f"{name}.png")
    _run(folder, "evaluate", *arguments, *data, *files)


def _install(source: Path, role: Role) -> dict[str, str]:
    """Put a model into the package, in half the bytes, and return its files' digests."""
    target = _HERE.parent / role
    target.mkdir(exist_ok=True)
    (target / CONFIG_FILE).write_text(json.dumps(config_document(role), indent=2) + "\n")
    shutil.copyfile(source / TOKENIZER_FILE, target / TOKENIZER_FILE)
    halves = {name: each.bfloat16() for name, each in load_file(source / SINGLE_FILE).items()}
    (target / SINGLE_FILE).write_bytes(save(halves, metadata={"format": "pt"}))
    names = (CONFIG_FILE, SINGLE_FILE, TOKENIZER_FILE)
    return {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in names}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m embedfleet.embedded.recipe FOLDER")
    main(Path(sys.argv[1]))
