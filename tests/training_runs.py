"""Small models, small data and settings for training runs that last a second."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

from embedfleet.checkpoint import resolve
from embedfleet.checkpoint.config import read_config
from embedfleet.checkpoint.layout import expected_tensors
from embedfleet.messages import Role

# Small work is slower by several threads, most of all beside other tests.
torch.set_num_threads(1)

WORDS = (
    *("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet"),
    *("jetty", "karst", "larch", "marsh", "north", "oasis", "pines", "quartz", "river"),
    *("slate", "tundra", "umbra", "vale", "wharf", "xenon", "yield", "zephyr"),
)


def small_model(folder: Path, role: Role, **changes: object) -> Path:
    """Write a random model of two layers with the tokenizer of an embedded one."""
    source = resolve(f"embedded/{role}")
    folder.mkdir(parents=True)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    config = json.loads((source / "config.json").read_bytes())
    config |= {
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size": 48,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, shape in expected_tensors(read_config(folder), role).items():
        drawn = torch.randn(shape, generator=generator)
        # Norms away from 1, or a forgotten one would not show.
        prefix = "" if name.startswith("lm_head") else "model."
        weights[prefix + name] = 1 + 0.2 * drawn if len(shape) == 1 else 0.2 * drawn
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_examples(file: Path, count: int = 24, **more: object) -> Path:
    """Write examples whose texts all differ, of several lengths."""
    lines = []
    for i in range(count):
        one, other = WORDS[i % 26], WORDS[(i // 26 + 3 * i + 1) % 26]
        lines.append(
            {
                "query": f"{one} {i}",
                "positives": [f"{one} {other} {i} " + "and so on " * (i % 5)],
                "negatives": [f"{other} of {i}", f"{other} by {i} " * 3][: i % 3],
                **more,
            }
        )
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def write_settings(file: Path, **sections: Any) -> Path:
    """Write a tune.yaml with what every run needs, unless given."""
    content: dict[str, Any] = {
        "model": {"source": "model"},
        "output": {"folder": str(file.parent / "run")},
        "data": [{"path": str(file.parent / "examples.jsonl")}],
        "schedule": {"steps": 6},
        "batch": {"size": 6},
        "optimizer": {"learningRate": 1e-3},
        "checkpoints": {"everySteps": 2},
        "threads": 1,
    }
    file.write_text(yaml.safe_dump(content | sections))
    return file


def losses(folder: Path) -> list[float]:
    """Read the loss of every step of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


class Quiet:
    """Watches a run and says nothing."""

    def began(self, done: int, num_steps: int, whole_tokens: int) -> None:
        self.done = done

    def stepped(self, metrics: object) -> None:
        pass

    def saved(self, folder: Path) -> None:
        pass
