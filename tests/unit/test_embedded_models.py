"""The models in the package are what their maker writes, and load as any other."""

import json

import pytest

from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.embedded.make import config, weights
from embedfleet.messages import EmbedItem, EmbedOptions, InputType, RerankOptions, Role
from embedfleet.tokenization import EmbeddingTokenizer, RerankingTokenizer

MAX_BYTES = 3_000_000


@pytest.mark.parametrize("role", list(Role))
def test_files_are_what_the_maker_writes(role):
    """The vocabulary alone depends on the version of Python that made it."""
    checkpoint = open_checkpoint(resolve(f"embedded/{role}"), role)
    made = weights(role)
    read = dict(checkpoint.tensors())
    assert {f"model.{name}" for name in read} == made.keys()
    assert all((made[f"model.{name}"] == tensor).all() for name, tensor in read.items())
    assert json.loads((checkpoint.folder / "config.json").read_text()) == config()
    assert sum(file.stat().st_size for file in checkpoint.folder.iterdir()) < MAX_BYTES


def test_both_roles_tokenize():
    embedder = open_checkpoint(resolve("embedded/embedder"), Role.EMBEDDER)
    tokenizer = embedder.load_tokenizer()
    (query,) = EmbeddingTokenizer(tokenizer, embedder.config.max_tokens)(
        [EmbedItem("yes")], EmbedOptions(InputType.QUERY), "find"
    )
    assert query.token_ids[-1] == tokenizer.special_tokens["<|endoftext|>"]
    reranker = open_checkpoint(resolve("embedded/reranker"), Role.RERANKER)
    tokenizer = reranker.load_tokenizer()
    assert tokenizer.final_token_id is None
    assert len(set(tokenizer.yes_no_ids())) == 2
    tokens = RerankingTokenizer(tokenizer, 200)("fox", ["dog"], RerankOptions(), "find")
    assert tokenizer.decode(tokens.documents[0].token_ids).startswith(" dog<|im_end|>")
