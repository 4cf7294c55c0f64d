"""The fast path and the reference give the same ids, on the published Qwen3 vocabulary.

The reference is Hugging Face `tokenizers` reading the same `tokenizer.json` without the added
tokens, built here anew, so that nothing under test stands on both sides.
"""

import json
import random
import unicodedata

import pytest
import tokenizers
from benchmarks.support.qwen_tokenizer import published

from embedfleet import prompts
from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.messages import Role
from embedfleet.tokenization import Tokenizer
from embedfleet.tokenization.fast import FastEncoder

NUM_RANDOM = 24_000
SPECIALS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "</think>", "<think>", "<tool_call>")
PIECES = (
    *SPECIALS,
    "<|im_end",
    "\r\n",
    "\n\n \n",
    "   ",
    "\t",
    "'s",
    "'LL",
    " don't",
    "'\u017f",  # long s: folds to s
    "\u212a",  # Kelvin sign: normalises to K
    "e\u0301",
    "\u1100\u1161\u11a8",  # Hangul in parts: composes
    "\u0f71\u0f72",
    "\ufb1d",
    "01234",
    "\U0001f469\u200d\U0001f4bb\ufe0f",
    "\U0001f1eb\U0001f1ee",
    "日本語",
    "न्दी",
    "สวัสดี",
    "مَرْحَبًا",
    " hello",
    "World",
)


@pytest.fixture(scope="module")
def data() -> bytes:
    return published(Role.EMBEDDER)


@pytest.fixture(scope="module")
def tokenizer(data) -> Tokenizer:
    return Tokenizer(data)


@pytest.fixture(scope="module")
def whole(data) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_str(data.decode())


@pytest.fixture(scope="module")
def reference(data) -> tokenizers.Tokenizer:
    document = json.loads(data)
    return tokenizers.Tokenizer.from_str(json.dumps({**document, "added_tokens": []}))


def random_character(rng: random.Random) -> str:
    low, high = rng.choice(
        (
            (0, 0x80),
            (0x80, 0x250),
            (0x300, 0x370),
            (0x370, 0x800),
            (0x800, 0x3000),
            (0x3000, 0xD800),
            (0xE000, 0x10000),
            (0x1D100, 0x1D800),
            (0x1F300, 0x1FB00),
            (0x10000, 0x110000),
        )
    )
    return chr(rng.randrange(low, high))


def random_text(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.02:
        return random_character(rng) * rng.randrange(1, 3_000)
    if kind < 0.04:
        return "".join(rng.choices("abcdeXYZ", k=rng.randrange(1, 6_000)))
    mixed = 0.3 + 0.7 * (kind > 0.5)
    return "".join(
        random_character(rng) if rng.random() < mixed else rng.choice(PIECES)
        for _ in range(rng.randrange(1, 60))
    )


def test_goldens_with_the_final_token(tokenizer, whole):
    for text, expected in (("!", [0]), ("test", [1944]), ("test again", [1944, 1549])):
        assert tokenizer.encode(text).tolist() == expected
        assert whole.encode(text).ids == [*expected, 151643]
    assert tokenizer.final_token_id == 151643
    assert tokenizer.yes_no_ids() == (9693, 2152)
    assert tokenizer.vocab_size == 151_669
    assert tokenizer.special_tokens["<|im_end|>"] == 151645
    assert tokenizer.special_tokens["</think>"] == 151668
    assert tokenizer.backend == "quicktok"


def test_random_texts_of_all_scripts(tokenizer, reference):
    rng = random.Random(20_260_101)
    texts = [random_text(rng) for _ in range(NUM_RANDOM)]
    expected = [e.ids for e in reference.encode_batch_fast(texts, add_special_tokens=False)]
    different = [
        text
        for text, ids, wanted in zip(texts, tokenizer.encode_batch(texts), expected, strict=True)
        if ids.tolist() != wanted
    ]
    assert different == []
    fast = FastEncoder()
    num_fast = sum(map(fast.is_exact_for, texts))
    assert NUM_RANDOM // 10 < num_fast < NUM_RANDOM  # both paths were taken


def test_every_character_before_and_after_marks(tokenizer, reference):
    """Composition and reordering change with Unicode's edition; every assigned character, once."""
    codes = (*range(0xD800), *range(0xE000, 0x33500), *range(0xE0000, 0xE0200))
    texts = [f"a{chr(c)}b e\u0301{chr(c)}\u0334 {chr(c)}1" for c in codes]
    for start in range(0, len(texts), 30_000):
        part = texts[start : start + 30_000]
        expected = reference.encode_batch_fast(part, add_special_tokens=False)
        got = tokenizer.encode_batch(part)
        assert [t for t, i, e in zip(part, got, expected, strict=True) if i.tolist() != e.ids] == []


def test_single_texts_take_the_same_path(tokenizer, reference):
    rng = random.Random(7)
    for text in ("", " ", "\n", "a", "\x00", *(random_text(rng) for _ in range(500))):
        assert (
            tokenizer.encode(text).tolist() == reference.encode(text, add_special_tokens=False).ids
        )


def test_batches_of_one_path_only_and_of_none(tokenizer, reference):
    for texts in ([], ["a"], ["a", "b"], ["\u1df6"], ["a", "\u1df6"], ["\u1df6", "b", "\u1df6"]):
        expected = reference.encode_batch_fast(texts, add_special_tokens=False)
        assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == [e.ids for e in expected]


def test_older_marks_stay_on_the_fast_path():
    fast = FastEncoder()
    common = "naïve café, Ελλάδα, Москва, हिन्दी, ไทย, עברית, العربية, 한국어, 中文, 日本語, 🚀👍🏽"
    assert fast.is_exact_for(common)
    assert fast.is_exact_for(unicodedata.normalize("NFD", common))
    assert not fast.is_exact_for("\u1df6")  # a mark of edition 10
    assert not fast.is_exact_for("\U00011d44")


def test_prompt_parts_give_the_tokens_of_the_whole(tokenizer, reference):
    """The official recipe tokenises the body as one string; the split is before the space."""
    rng = random.Random(3)
    queries = [random_text(rng) for _ in range(30)]
    for query in queries:
        head = tokenizer.encode(prompts.rerank_head(DEFAULT_INSTRUCTION, query)).tolist()
        documents = [random_text(rng) for _ in range(200)]
        tails = tokenizer.encode_batch([prompts.document_tail(d) for d in documents])
        bodies = [
            f"<Instruct>: {DEFAULT_INSTRUCTION}\n<Query>: {query}\n<Document>: {document}"
            for document in documents
        ]
        expected = reference.encode_batch_fast(bodies, add_special_tokens=False)
        for tail, body in zip(tails, expected, strict=True):
            assert head + tail.tolist() == body.ids


def test_templates_hold_real_special_tokens(tokenizer, whole):
    for template, count in ((prompts.RERANK_PREFIX, 39), (prompts.RERANK_SUFFIX, 9)):
        expected = whole.encode(template, add_special_tokens=False).ids
        assert tokenizer.encode_template(template).tolist() == expected
        assert len(expected) == count


def test_decode_inverts_encode(tokenizer, reference):
    rng = random.Random(11)
    for text in (random_text(rng) for _ in range(300)):
        assert tokenizer.decode(tokenizer.encode(text)) == reference.normalizer.normalize_str(text)
    assert tokenizer.decode([1944, 151645, 151643]) == "test<|im_end|><|endoftext|>"


def changed(data: bytes, change) -> Tokenizer:
    document = json.loads(data)
    change(document)
    return Tokenizer(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("a merge fewer", lambda d: d["model"]["merges"].pop()),
        (
            "two merges exchanged",
            lambda d: d["model"]["merges"].insert(9, d["model"]["merges"].pop(8)),
        ),
        ("another normalizer", lambda d: d.update(normalizer={"type": "NFKC"})),
        ("no normalizer", lambda d: d.update(normalizer=None)),
        ("whole words first", lambda d: d["model"].update(ignore_merges=True)),
        (
            "three digits at once",
            lambda d: d["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\p{N}{1,3}"),
        ),
        (
            "two ids exchanged",
            lambda d: d["model"]["vocab"].update(yes=2152, no=9693),
        ),
    ],
)
def test_another_tokenizer_never_takes_the_fast_path(data, why, change):
    assert changed(data, change).backend == "tokenizers", why


def test_merges_in_the_older_spelling_are_the_same_tokenizer(data):
    def spell(document):
        document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]

    assert changed(data, spell).backend == "quicktok"
