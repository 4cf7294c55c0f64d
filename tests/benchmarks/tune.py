"""Training tokens/s against a plain loop of transformers, and memory of cached gradients."""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from support.report import (
    CELLS,
    Side,
    alternate,
    arguments,
    begin,
    by_core_time,
    conclude,
    note,
    paired,
    table,
)
from transformers import Qwen3Model

from embedfleet.checkpoint import resolve
from embedfleet.checkpoint.config import read_config
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.messages import Role, TokenIds
from embedfleet.tuning.batches import ContrastiveRows, TokenBatch
from embedfleet.tuning.contrast import Contrast
from embedfleet.tuning.losses import ContrastiveSettings, contrastive_loss
from embedfleet.tuning.preparing import prepare
from embedfleet.tuning.settings import EmbedderSettings
from embedfleet.tuning.stepping import Stepper, make_optimizer

OURS, PEER = "embedfleet tune", "transformers loop"
SHAPES = {
    "speed": {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 768},
    "memory": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 192},
}
PARITY = 1e-4
MIB = 2**20


def model_folder(place: Path, kind: str) -> Path:
    """Write a random model with an embedded model's tokenizer."""
    source, folder = resolve("embedded/embedder"), place / kind
    folder.mkdir()
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((source / "config.json").read_bytes()) | SHAPES[kind]
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    config["head_dim"] = config["hidden_size"] // 4
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in expected_tensors(read_config(folder), Role.EMBEDDER).items():
        drawn = torch.randn(shape, generator=generator) * 0.02
        weights[f"model.{name}"] = drawn if len(shape) > 1 else torch.ones(shape)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def examples_file(file: Path, count: int, longest: int) -> Path:
    """Write examples whose documents are of any length up to so many words."""
    drawn = random.Random(0)
    letters = "etaoinshrdlu"

    def words(number: int) -> str:
        return " ".join(
            "".join(drawn.choices(letters, k=drawn.randint(2, 7))) for _ in range(number)
        )

    with file.open("w") as stream:
        for _ in range(count):
            lengths = [max(2, int(longest * drawn.random() ** 2)) for _ in range(2)]
            positive, negative = map(words, lengths)
            query = words(drawn.randint(2, 8))
            line = {"query": query, "positives": [positive], "negatives": [negative]}
            stream.write(json.dumps(line) + "\n")
    return file


def settings_of(model: Path, data: Path, size: int, cache: str = "never") -> EmbedderSettings:
    """Return settings of one step after the other over the data."""
    content = {
        "model": {"source": str(model)},
        "output": {"folder": "unused"},
        "data": [{"path": str(data)}],
        "batch": {"size": size, "cacheGradients": cache},
        "schedule": {"epochs": 1},
    }
    return EmbedderSettings.model_validate_json(json.dumps(content), by_alias=True)


class Ours:
    """The trainer's own steps, tokenizing included."""

    def __init__(self, settings: EmbedderSettings, steps: int) -> None:
        self.prepared = prepare(settings)
        self.stepper = Stepper(self.prepared.model, settings, 2**60)
        self.optimizer = make_optimizer(self.prepared.model, settings)
        self.steps = steps
        self.loss = 0.0
        self.padded = 0

    def run(self) -> None:
        """Take every step once."""
        self.padded = 0
        for step in range(self.steps):
            done = self.stepper.gradients(self.prepared.batches.batch(step))
            self.optimizer.step()
            self.loss = self.loss or done.loss
            self.padded += done.padded_tokens


class Plain:
    """What a user would write: pad, mask, pool the last token, loss, AdamW."""

    def __init__(self, folder: Path, batches: Sequence[TokenBatch]) -> None:
        self.model = Qwen3Model.from_pretrained(folder, dtype=torch.float32).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, weight_decay=0.01)
        self.batches = batches
        self.loss = 0.0
        self.padded = 0

    def run(self) -> None:
        """Take every step once."""
        self.padded = 0
        for batch in self.batches:
            rows = batch.rows
            assert isinstance(rows, ContrastiveRows)
            size = rows.num_queries
            # Queries and documents apart: one padding for both would be worse.
            queries = self._states(batch.sequences[:size])
            documents = self._states(batch.sequences[size:])
            negatives = documents[rows.negatives - size]
            loss = contrastive_loss(
                Contrast(queries, documents[:size], negatives, rows.negative_mask,
                         rows.document_ids, rows.negative_ids),
                ContrastiveSettings(temperature=0.05),
            )  # fmt: skip
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()
            self.loss = self.loss or float(loss.detach())

    def _states(self, sequences: Sequence[TokenIds]) -> torch.Tensor:
        lengths = torch.tensor([len(each) for each in sequences])
        token_ids = torch.zeros((len(sequences), int(lengths.max())), dtype=torch.int64)
        for place, each in enumerate(sequences):
            token_ids[place, : len(each)] = torch.from_numpy(each)
        mask = torch.arange(token_ids.shape[1])[None] < lengths[:, None]
        self.padded += token_ids.numel()
        hidden: Any = self.model(input_ids=token_ids, attention_mask=mask.long())
        return hidden.last_hidden_state[torch.arange(len(lengths)), lengths - 1]


def peak_bytes(place: Path, cache: str, size: int) -> int:
    """Measure the most memory that one step takes, in a process of its own."""
    command = [sys.executable, __file__, "--measure", cache, "--size", str(size), str(place)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    *told, peak = answer.strip().splitlines()
    print("\n".join(told))
    return int(peak)


def measure(place: Path, cache: str, size: int) -> None:
    """Take one step and print the most that it held beside what was there before."""
    settings = settings_of(place / "memory", place / "short.jsonl", size, cache)
    prepared = prepare(settings)
    stepper = Stepper(prepared.model, settings, 0 if cache == "always" else 2**60)
    batch = prepared.batches.batch(0)
    # The highest mark of a child begins with its parent's: set it back.
    Path("/proc/self/clear_refs").write_text("5")
    before = highest_bytes()
    done = stepper.gradients(batch)
    note(f"{cache}: loss {done.loss:.6f}, {batch.num_tokens:,} tokens")
    print(highest_bytes() - before)


def highest_bytes() -> int:
    """Read the highest resident size of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    given = arguments(__doc__, batch=32, steps=2, words=160, rounds=3, memory_batch=8192)
    begin(
        "tune",
        f"{given.steps} steps of {given.batch} examples, documents up to {given.words} words",
        "Qwen3Model of transformers: padded, masked, AdamW",
    )
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        data = examples_file(place / "data.jsonl", given.batch * given.steps, given.words)
        folder = model_folder(place, "speed")
        ours = Ours(settings_of(folder, data, given.batch), given.steps)
        batches = [ours.prepared.batches.batch(step) for step in range(given.steps)]
        plain = Plain(folder, batches)
        sides = {OURS: Side(ours.run), PEER: Side(plain.run)}
        ours.run()
        plain.run()
        note(f"difference of the first loss: {abs(ours.loss - plain.loss):.1e}, allowed {PARITY}")
        if not abs(ours.loss - plain.loss) < PARITY:
            raise SystemExit("The losses differ: no speed counts.")
        alternate(sides, given.rounds)
        tokens = sum(batch.num_tokens for batch in batches)
        rows = [
            (side, tokens / sides[side].seconds, f"{1 - tokens / padded:.1%}", *sides[side].cells())
            for side, padded in ((OURS, ours.padded), (PEER, plain.padded))
        ]
        table(("side", "tokens/s", "padding", *CELLS), rows)
        model_folder(place, "memory")
        examples_file(place / "short.jsonl", given.memory_batch, 16)
        cached, whole = (peak_bytes(place, c, given.memory_batch) for c in ("always", "never"))
    note(f"peak of a batch of {given.memory_batch:,}: cached {cached / MIB:,.0f} MiB, unsplit "
         f"{whole / MIB:,.0f} MiB")  # fmt: skip
    print(f"tune-memory: ratio {whole / cached:.3f}")
    ratio = paired(sides[PEER], sides[OURS])
    conclude("tune", ratio, "at least 1.0", by_core_time(sides[PEER], sides[OURS]))


if __name__ == "__main__":
    if "--measure" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--measure")
        parser.add_argument("--size", type=int)
        parser.add_argument("place", type=Path)
        asked = parser.parse_args()
        measure(asked.place, asked.measure, asked.size)
    else:
        main()
