"""What a text becomes: prompts, limits, ids as input, refusals. On a vocabulary trained here."""

import json
import re

import numpy as np
import pytest

from embedfleet.embedded.vocabulary import small
from embedfleet.errors import CheckpointError, InvalidRequest
from embedfleet.messages import (
    EmbedItem,
    EmbedOptions,
    InputType,
    RerankOptions,
    Role,
    Truncation,
)
from embedfleet.tokenization import EmbeddingTokenizer, RerankingTokenizer, Tokenizer

TEXTS = (
    "Instruct: Given a web search query, retrieve relevant passages that answer the query",
    "Query: yes no yes no <Instruct> <Query> <Document> assistant system user",
    "the quick brown fox jumps over the lazy dog and the answer is yes or no",
)
VOCAB_SIZE = 300
FINAL = VOCAB_SIZE  # the first added token
DOCUMENT = EmbedOptions(input_type=InputType.DOCUMENT)
QUERY = EmbedOptions(input_type=InputType.QUERY)


@pytest.fixture(scope="module")
def data() -> bytes:
    return small(TEXTS * 3, VOCAB_SIZE, Role.EMBEDDER)


@pytest.fixture(scope="module")
def tokenizer(data) -> Tokenizer:
    return Tokenizer(data)


@pytest.fixture(scope="module")
def embedding(tokenizer) -> EmbeddingTokenizer:
    return EmbeddingTokenizer(tokenizer, 64)


@pytest.fixture(scope="module")
def reranking() -> RerankingTokenizer:
    return RerankingTokenizer(Tokenizer(small(TEXTS * 3, VOCAB_SIZE, Role.RERANKER)), 400)


def options(input_type: str, truncation: str = "NONE", instruction: str | None = None):
    return EmbedOptions(InputType(input_type), instruction, truncation=Truncation(truncation))


def one(embedding, item, asked=DOCUMENT, default="find"):
    (outcome,) = embedding([item], asked, default)
    return outcome


def ids_of(embedding, item, asked=DOCUMENT, default="find"):
    return one(embedding, item, asked, default).token_ids.tolist()


# ---- the file


def test_ids_come_from_the_file(tokenizer):
    assert tokenizer.final_token_id == FINAL
    assert tokenizer.vocab_size == VOCAB_SIZE + 26
    assert tokenizer.backend == "tokenizers"
    assert tokenizer.special_tokens["<|im_end|>"] == VOCAB_SIZE + 2
    yes, no = tokenizer.yes_no_ids()
    assert (tokenizer.decode([yes]), tokenizer.decode([no])) == ("yes", "no")


def test_digest_is_of_the_bytes(data, tokenizer):
    assert Tokenizer(data + b"\n").digest != tokenizer.digest
    assert len(tokenizer.digest) == 64


def test_a_reranker_file_appends_nothing(reranking):
    assert reranking.tokenizer.final_token_id is None
    with pytest.raises(CheckpointError, match="appends no final token"):
        EmbeddingTokenizer(reranking.tokenizer, 64)


def test_an_answer_must_be_one_token(tokenizer):
    with pytest.raises(CheckpointError, match="'yes no' is 2 tokens"):
        tokenizer.single_token_id("yes no")


def test_file_or_folder(tmp_path, data):
    (tmp_path / "tokenizer.json").write_bytes(data)
    assert Tokenizer.load(tmp_path).digest == Tokenizer.load(tmp_path / "tokenizer.json").digest


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "tokenizer.json"))):
        Tokenizer.load(tmp_path / "tokenizer.json")


def with_post_processor(data: bytes, post_processor: object) -> bytes:
    return json.dumps({**json.loads(data), "post_processor": post_processor}).encode()


@pytest.mark.parametrize(
    ("post_processor", "why"),
    [
        ({"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}, "BertProcessing"),
        (
            {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "x"}}, {"Sequence": {"id": "A"}}],
                "special_tokens": {},
            },
            "SpecialToken",
        ),
    ],
)
def test_another_template_is_refused(data, post_processor, why):
    with pytest.raises(CheckpointError, match=why):
        Tokenizer(with_post_processor(data, post_processor))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"version https://git-lfs.github.com/spec/v1", "is not JSON"),
        (b"[]", "has no `model`"),
        (b'{"model": {"type": "Unheard"}}', "not a tokenizer that"),
    ],
)
def test_damaged_files_are_refused(data, why):
    with pytest.raises(CheckpointError, match=why):
        Tokenizer(data)


# ---- embedding


def test_document_is_the_raw_text_and_the_final_token(embedding, tokenizer):
    assert ids_of(embedding, EmbedItem(" fox \n")) == [*tokenizer.encode(" fox \n"), FINAL]


def test_query_carries_the_default_instruction(embedding, tokenizer):
    expected = [*tokenizer.encode("Instruct: find\nQuery:fox"), FINAL]
    assert ids_of(embedding, EmbedItem("fox"), QUERY) == expected


def test_query_carries_its_own_instruction(embedding, tokenizer):
    expected = [*tokenizer.encode("Instruct: jump\nQuery:fox"), FINAL]
    assert ids_of(embedding, EmbedItem("fox"), options("QUERY", instruction="jump")) == expected


@pytest.mark.parametrize("special", ["<|im_end|>", "<|endoftext|>", "</think>", "<tool_call>"])
def test_special_tokens_in_text_stay_text(embedding, tokenizer, special):
    ids = ids_of(embedding, EmbedItem(f"a{special}b"))
    assert not set(ids[:-1]) & tokenizer.special_ids
    assert tokenizer.decode(ids[:-1]) == f"a{special}b"


def test_order_and_neighbours_of_a_bad_item(embedding, tokenizer):
    items = [
        EmbedItem("fox"),
        EmbedItem(""),
        EmbedItem(token_ids=np.array([5, 6])),
        EmbedItem("dog"),
    ]
    first, second, third, fourth = embedding(items, DOCUMENT, "find")
    assert first.token_ids.tolist() == [*tokenizer.encode("fox"), FINAL]
    assert (type(second), second.field) == (InvalidRequest, "items[1].text")
    assert third.token_ids.tolist() == [5, 6, FINAL]
    assert fourth.token_ids.tolist() == [*tokenizer.encode("dog"), FINAL]


LONG = "the quick brown fox " * 40


@pytest.mark.parametrize("input_type", ["QUERY", "DOCUMENT"])
def test_too_long_is_refused_with_count_and_limit(embedding, tokenizer, input_type):
    error = one(embedding, EmbedItem(LONG), options(input_type))
    head = "Instruct: find\nQuery:" if input_type == "QUERY" else ""
    assert isinstance(error, InvalidRequest)
    assert error.field == "items[0].text"
    assert f"{len(tokenizer.encode(head + LONG)) + 1}" in error.message
    assert "64" in error.message


@pytest.mark.parametrize("input_type", ["QUERY", "DOCUMENT"])
@pytest.mark.parametrize("truncation", ["END", "START"])
def test_cutting_keeps_instruction_and_final_token(embedding, tokenizer, input_type, truncation):
    outcome = one(embedding, EmbedItem(LONG), options(input_type, truncation))
    head = tokenizer.encode("Instruct: find\nQuery:" if input_type == "QUERY" else "").tolist()
    ids = outcome.token_ids.tolist()
    whole = [*tokenizer.encode(("Instruct: find\nQuery:" if head else "") + LONG)]
    assert outcome.truncated
    assert (len(ids), ids[-1]) == (64, FINAL)
    if truncation == "END":
        assert ids[:-1] == whole[:63]
    else:
        kept = 63 - len(head)
        assert ids[:-1] == head + whole[-kept:]


def test_text_of_exactly_the_limit_is_whole(tokenizer):
    num_tokens = len(tokenizer.encode(LONG)) + 1
    outcome = one(
        EmbeddingTokenizer(tokenizer, num_tokens), EmbedItem(LONG), options("DOCUMENT", "END")
    )
    assert (len(outcome.token_ids), outcome.truncated) == (num_tokens, False)
    error = one(EmbeddingTokenizer(tokenizer, num_tokens - 1), EmbedItem(LONG))
    assert isinstance(error, InvalidRequest)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([5, 6], [5, 6, FINAL]),
        ([5, 6, FINAL], [5, 6, FINAL]),  # not doubled
        ([0], [0, FINAL]),
        ([VOCAB_SIZE - 1], [VOCAB_SIZE - 1, FINAL]),
    ],
)
@pytest.mark.parametrize("dtype", [np.int64, np.uint32])
def test_token_ids_are_completed(embedding, given, expected, dtype):
    assert ids_of(embedding, EmbedItem(token_ids=np.array(given, dtype))) == expected


def test_token_ids_of_a_query_follow_the_instruction(embedding, tokenizer):
    expected = [*tokenizer.encode("Instruct: find\nQuery:"), 5, 6, FINAL]
    assert ids_of(embedding, EmbedItem(token_ids=np.array([5, 6])), QUERY) == expected


def test_token_ids_are_cut_like_text(embedding):
    given = np.arange(200) % 100
    end = ids_of(embedding, EmbedItem(token_ids=given), options("DOCUMENT", "END"))
    start = ids_of(embedding, EmbedItem(token_ids=given), options("DOCUMENT", "START"))
    assert end == [*given[:63], FINAL]
    assert start == [*given[-63:], FINAL]


@pytest.mark.parametrize(
    ("item", "field", "why"),
    [
        (EmbedItem(), "items[0]", "neither text nor token_ids"),
        (EmbedItem("a", np.array([1])), "items[0]", "both"),
        (EmbedItem(""), "items[0].text", "empty"),
        (EmbedItem("\ud83d"), "items[0].text", "surrogate"),
        # Too long even to be cut: 32,768 of the longest tokens, and one character more.
        (EmbedItem("x" * (32_768 * 128 + 1)), "items[0].text", "4,194,305 characters"),
        (EmbedItem(token_ids=np.array([], np.int64)), "items[0].token_ids", "empty"),
        (EmbedItem(token_ids=np.array([FINAL])), "items[0].token_ids", "empty"),
        (EmbedItem(token_ids=np.array([1, VOCAB_SIZE + 26])), "items[0].token_ids", "0 to 325"),
        (EmbedItem(token_ids=np.array([1, -1])), "items[0].token_ids", "[1] is -1"),
        (EmbedItem(token_ids=np.array([2**32 - 1], np.uint32)), "items[0].token_ids", "4294967295"),
        (EmbedItem(token_ids=np.array([1, FINAL, 2])), "items[0].token_ids", "<|endoftext|>"),
        (EmbedItem(token_ids=np.array([FINAL, FINAL])), "items[0].token_ids", "<|endoftext|>"),
        (EmbedItem(token_ids=np.array([VOCAB_SIZE + 2, 1])), "items[0].token_ids", "<|im_end|>"),
    ],
)
def test_bad_items(embedding, item, field, why):
    error = one(embedding, item)
    assert isinstance(error, InvalidRequest)
    assert error.field == field
    assert why in error.message


@pytest.mark.parametrize(
    ("asked", "default", "why"),
    [
        (options("DOCUMENT", instruction="find"), "find", "only queries"),
        (options("DOCUMENT", instruction=""), "find", "only queries"),
        (options("QUERY", instruction=""), "find", "must be text"),
        (options("QUERY", instruction=" \n"), "find", "must be text"),
        (options("QUERY"), "", "must be text"),
        (options("QUERY", instruction="\udc00"), "find", "must be text"),
        (options("QUERY", "END", instruction=LONG), "find", "Shorten it"),
    ],
)
def test_bad_instructions_fail_the_request(embedding, asked, default, why):
    with pytest.raises(InvalidRequest, match=why) as caught:
        embedding([EmbedItem("fox")], asked, default)
    assert caught.value.field == "instruction"


def test_an_error_stays_itself(embedding):
    earlier = InvalidRequest("bytes are not UTF-8", field="items[0].text")
    first, second = embedding([earlier, EmbedItem("fox")], DOCUMENT, "find")
    assert first is earlier
    assert second.token_ids[-1] == FINAL


def test_no_items_give_no_outcomes(embedding):
    assert embedding([], QUERY, "find") == []


# ---- reranking

SYSTEM = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_pair_is_prefix_body_and_suffix(reranking):
    encode, template = reranking.tokenizer.encode, reranking.tokenizer.encode_template
    tokens = reranking("quick fox", ["lazy dog", "the fox"], RerankOptions(), "find")
    for document, tokenized in zip(("lazy dog", "the fox"), tokens.documents, strict=True):
        body = encode(f"<Instruct>: find\n<Query>: quick fox\n<Document>: {document}")
        assert [*tokens.prefix, *tokenized.token_ids] == [
            *template(SYSTEM),
            *body,
            *template(SUFFIX),
        ]


def test_turns_cannot_be_closed_by_users(reranking):
    special = reranking.tokenizer.special_tokens["<|im_end|>"]
    tokens = reranking("<|im_end|>", ["<|im_end|>\n<|im_start|>"], RerankOptions(), "<|im_end|>")
    assert tokens.prefix.tolist().count(special) == 1
    assert tokens.documents[0].token_ids.tolist().count(special) == 1


def test_own_instruction(reranking):
    own = reranking("fox", ["dog"], RerankOptions(instruction="jump"), "find")
    assert "<Instruct>: jump\n" in reranking.tokenizer.decode(own.prefix)


@pytest.mark.parametrize("bound", [None, 5])
@pytest.mark.parametrize("truncation", [Truncation.END, Truncation.START])
def test_only_the_document_is_cut(reranking, truncation, bound):
    asked = RerankOptions(truncation=truncation, max_tokens_per_document=bound)
    document = "the quick brown fox " * 100
    tokens = reranking("fox", [document], asked, "find")
    suffix = reranking.tokenizer.encode_template(SUFFIX).tolist()
    whole = reranking.tokenizer.encode(" " + document).tolist()
    room = bound or 400 - len(tokens.prefix) - len(suffix)
    kept = whole[:room] if truncation is Truncation.END else whole[-room:]
    assert tokens.documents[0].truncated
    assert tokens.documents[0].token_ids.tolist() == kept + suffix


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (None, "not valid UTF-8"),
        ("\ud800", "not valid UTF-8"),
        ("", "empty"),
        ("the quick brown fox " * 100, "Set truncation"),
        pytest.param("x" * (32_768 * 128 + 1), "4,194,305 characters", id="endless"),
    ],
)
def test_bad_documents_leave_their_neighbours_alone(reranking, document, why):
    tokens = reranking("fox", ["dog", document, "cat"], RerankOptions(), "find")
    good, error, other = tokens.documents
    assert isinstance(error, InvalidRequest)
    assert error.field == "documents[1]"
    assert why in error.message
    assert len(good.token_ids)
    assert len(other.token_ids)


@pytest.mark.parametrize(
    ("query", "asked", "field", "why"),
    [
        ("", RerankOptions(), "query", "must be text"),
        ("\udfff", RerankOptions(), "query", "must be text"),
        ("fox " * 400, RerankOptions(truncation=Truncation.END), "query", "Shorten the query"),
        pytest.param("x" * 5_000_000, RerankOptions(), "query", "5,000,000 char", id="endless"),
        ("fox", RerankOptions(instruction=""), "instruction", "must be text"),
        ("fox", RerankOptions(instruction=" "), "instruction", "must be text"),
        ("fox", RerankOptions(max_tokens_per_document=0), "max_tokens_per_document", "at least 1"),
    ],
)
def test_what_no_document_can_survive_fails_the_request(reranking, query, asked, field, why):
    with pytest.raises(InvalidRequest, match=why) as caught:
        reranking(query, ["dog"], asked, "find")
    assert caught.value.field == field


def test_a_file_that_cuts_otherwise_is_refused(data):
    document = json.loads(data)
    document["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"
    with pytest.raises(CheckpointError, match="pre_tokenizer"):
        RerankingTokenizer(Tokenizer(json.dumps(document).encode()), 400)


def test_a_file_without_the_prompts_tokens_is_refused(data):
    document = json.loads(data)
    document["added_tokens"] = document["added_tokens"][:1]
    with pytest.raises(CheckpointError, match="<think>"):
        RerankingTokenizer(Tokenizer(json.dumps(document).encode()), 400)
