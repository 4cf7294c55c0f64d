"""Writes `tokenizer.json` files of Qwen3's kind, with a small vocabulary of our own or any other.

Same normalizer, same cutting pattern, same special tokens, same post-processor as the published
one; only the merges differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import tokenizers

from embedfleet.errors import CheckpointError
from embedfleet.messages import Role
from embedfleet.tokenization.fast import QWEN_SPLIT, byte_alphabet

__all__ = ["ADDED_TOKENS", "FINAL_TOKEN", "Merges", "document", "small"]

FINAL_TOKEN: Final = "<|endoftext|>"

ADDED_TOKENS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(
        (
            FINAL_TOKEN,
            "<|im_start|>",
            "<|im_end|>",
            "<|object_ref_start|>",
            "<|object_ref_end|>",
            "<|box_start|>",
            "<|box_end|>",
            "<|quad_start|>",
            "<|quad_end|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|vision_pad|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
        True,
    ),
    **dict.fromkeys(
        (
            "<tool_call>",
            "</tool_call>",
            "<|fim_prefix|>",
            "<|fim_middle|>",
            "<|fim_suffix|>",
            "<|fim_pad|>",
            "<|repo_name|>",
            "<|file_sep|>",
            "<tool_response>",
            "</tool_response>",
            "<think>",
            "</think>",
        ),
        False,
    ),
}
"""Qwen3's added tokens in the order of their ids, and whether the file calls them special."""

Merges = Sequence[tuple[str, str]]
"""Pairs of tokens that become one, the first to be merged first."""


def small(texts: Iterable[str], vocab_size: int, role: Role) -> bytes:
    """Train a vocabulary on texts; added tokens take the ids from `vocab_size` on.

    Raises:
        CheckpointError: The texts yield fewer tokens, or `yes` or `no` is not one of them.
    """
    untrained = json.loads(document({}, [], Role.RERANKER)) | {"added_tokens": []}
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(untrained))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=sorted(byte_alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    vocab = model["vocab"]
    if len(vocab) != vocab_size or not {"yes", "no"} <= vocab.keys():
        raise CheckpointError(
            f"The texts gave {len(vocab)} tokens, wanted {vocab_size} with `yes` and `no` among "
            "them. Give more text."
        )
    return document(vocab, [tuple(merge) for merge in model["merges"]], role)


def document(vocab: Mapping[str, int], merges: Merges, role: Role) -> bytes:
    """Write a vocabulary as an embedder's or a reranker's file; added tokens follow its ids."""
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": False,
    }
    split = {
        "type": "Split",
        "pattern": {"Regex": QWEN_SPLIT},
        "behavior": "Isolated",
        "invert": False,
    }
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(len(vocab)),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": _appending(byte_level, len(vocab))
        if role is Role.EMBEDDER
        else byte_level,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": [list(merge) for merge in merges],
        },
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _added_tokens(first_id: int) -> list[dict[str, Any]]:
    return [
        {
            "id": first_id + i,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for i, (content, special) in enumerate(ADDED_TOKENS.items())
    ]


def _appending(byte_level: Mapping[str, Any], final_id: int) -> dict[str, Any]:
    """Return the embedder's post-processor, which puts the final token after a text."""
    final = {"SpecialToken": {"id": FINAL_TOKEN, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    other = {"Sequence": {"id": "B", "type_id": 0}}
    template = {
        "type": "TemplateProcessing",
        "single": [text, final],
        "pair": [text, final, other, final],
        "special_tokens": {
            FINAL_TOKEN: {"id": FINAL_TOKEN, "ids": [final_id], "tokens": [FINAL_TOKEN]}
        },
    }
    return {"type": "Sequence", "processors": [byte_level, template]}
