"""What a fleet answers is what the official recipe gives, whichever way it is asked.

The recipe is typed out here on transformers, one text at a time; the fleet is asked through the
edge, by plain gRPC and by the SDK.
"""

from functools import cache
from importlib import resources

import grpc
import numpy as np
import pytest
import torch
from fleet_calls import ids, pairs, texts
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from embedfleet.client import AsyncClient, Client
from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2, reranking_pb2

EMBED, EMBED_STREAM = "EmbeddingService/Embed", "EmbeddingService/EmbedStream"
RERANK, RERANK_STREAM = "RerankingService/Rerank", "RerankingService/RerankStream"
TOKENIZE = "ModelService/Tokenize"

TASK = "Given a web search query, retrieve relevant passages that answer the query"
OTHER_TASK = "Find code that does what is asked for"
FINAL = "<|endoftext|>"
MAX_TOKENS = 1000
TOLERANCE = 1e-4

CORPUS = [
    "Gravity is a force that attracts two bodies towards each other.",
    "a",
    "日本の首都は東京です。 Tokyo 🗼 is its capital.",
    "import os\n\ndef main():\n\treturn os.getcwd()\r\n",
    "long " * 300,
    "text with <|im_end|> and <|endoftext|> in it",
    "  spaces  at  both  ends  ",
]


@cache
def reference(role):
    """Tokenizer and model as transformers loads them."""
    torch.set_num_threads(1)
    with resources.as_file(resources.files("embedfleet.embedded") / role) as folder:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
        load = AutoModel if role == "embedder" else AutoModelForCausalLM
        return tokenizer, load.from_pretrained(folder, dtype=torch.float32).eval()


def plain(tokenizer, text):
    """Ids of text in which special tokens are only letters."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


@cache
def sequence(text, task=None):
    tokenizer, _ = reference("embedder")
    whole = text if task is None else f"Instruct: {task}\nQuery:{text}"
    return [*plain(tokenizer, whole), tokenizer.convert_tokens_to_ids(FINAL)]


@cache
def hidden(text, task=None):
    _, model = reference("embedder")
    with torch.inference_mode():
        states = model(torch.tensor([sequence(text, task)])).last_hidden_state
    return states[0, -1].numpy()


def vector(text, task=None, dimension=None):
    cut = hidden(text, task)[:dimension]
    return cut / np.linalg.norm(cut)


@cache
def pair_logits(query, document, task=TASK):
    """Logits of (no, yes) after the prompt of the model card."""
    tokenizer, model = reference("reranker")
    prefix = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
        'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n"
    )
    suffix = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    body = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {document}"
    template = [tokenizer.encode(part, add_special_tokens=False) for part in (prefix, suffix)]
    whole = [*template[0], *plain(tokenizer, body), *template[1]]
    no_yes = [tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]
    with torch.inference_mode():
        return model(torch.tensor([whole])).logits[0, -1, no_yes]


def score(query, document, task=TASK):
    return torch.log_softmax(pair_logits(query, document, task), dim=0).exp()[1].item()


def rows(response):
    return np.array([embedding.values for embedding in response.embeddings], np.float32)


def expect(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", ["docs", "text-embedding-3-small"])
@pytest.mark.parametrize(
    ("options", "task"),
    [
        ({"input_type": "DOCUMENT"}, None),
        ({"input_type": "QUERY"}, TASK),
        ({"input_type": "QUERY", "instruction": OTHER_TASK}, OTHER_TASK),
    ],
    ids=["document", "query", "instruction"],
)
def test_vectors(caller, model, options, task):
    response = caller.call(EMBED, texts(model, *CORPUS, **options))
    expect(rows(response), [vector(text, task) for text in CORPUS])
    counts = [len(sequence(text, task)) for text in CORPUS]
    assert [each.num_tokens for each in response.embeddings] == counts
    assert response.usage == common_pb2.Usage(input_tokens=sum(counts), num_items=len(CORPUS))


@pytest.mark.parametrize("model", ["relevance", "rerank-small"])
@pytest.mark.parametrize("options", [{}, {"instruction": OTHER_TASK}])
def test_scores(caller, model, options):
    query = "what attracts two bodies?"
    response = caller.call(RERANK, pairs(model, query, *CORPUS, **options))
    expected = [score(query, text, options.get("instruction", TASK)) for text in CORPUS]
    order = [result.index for result in response.results]
    assert sorted(order) == list(range(len(CORPUS)))
    expect([result.score for result in response.results], [expected[i] for i in order])
    scores = [result.score for result in response.results]
    assert scores == sorted(scores, reverse=True)
    assert response.usage.num_items == len(CORPUS)


def test_scores_as_asked_for(caller):
    query = "what attracts two bodies?"
    request = pairs("relevance", query, *CORPUS, top_n=3, raw_scores=True, return_documents=True)
    response = caller.call(RERANK, request)
    raw = []
    for text in CORPUS:
        no, yes = pair_logits(query, text)
        raw.append((yes - no).item())
    best = sorted(range(len(CORPUS)), key=lambda i: -raw[i])[:3]
    assert [result.index for result in response.results] == best
    assert [result.document for result in response.results] == [CORPUS[i] for i in best]
    expect([result.score for result in response.results], [raw[i] for i in best])
    assert response.usage.num_items == len(CORPUS)


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_calls_get_the_same(caller, compression):
    response = caller.call(EMBED, texts("docs", *CORPUS), compression=compression)
    expect(rows(response), [vector(text) for text in CORPUS])
    request = pairs("relevance", "what?", *CORPUS)
    plainly, compressed = (
        caller.call(RERANK, request, compression=each)
        for each in (grpc.Compression.NoCompression, compression)
    )
    expect([r.score for r in compressed.results], [r.score for r in plainly.results])


@pytest.mark.parametrize("dimension", [32, 100, 256])
@pytest.mark.parametrize("normalize", [True, False])
def test_dimensions_are_cut_before_they_are_normalised(caller, dimension, normalize):
    request = texts("docs", *CORPUS, dimension=dimension, normalize=normalize)
    response = caller.call(EMBED, request)
    expected = [
        vector(text, dimension=dimension) if normalize else hidden(text)[:dimension]
        for text in CORPUS
    ]
    assert response.dimension == dimension
    np.testing.assert_allclose(rows(response), expected, rtol=1e-4, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("output_type", "element", "dimension"),
    [
        ("FLOAT32", "<f4", 256),
        ("FLOAT16", "<f2", 256),
        ("INT8", "<i1", 64),
        ("UINT8", "<u1", 64),
        ("BINARY", "<i1", 64),
        ("UBINARY", "<u1", 64),
    ],
)
def test_output_types(caller, output_type, element, dimension):
    request = texts("docs", *CORPUS, output_type=output_type, dimension=dimension)
    response = caller.call(EMBED, request)
    assert common_pb2.OutputType.Name(response.output_type) == output_type
    expected = np.array([vector(text, dimension=dimension) for text in CORPUS], np.float32)
    scales = np.abs(expected).max(axis=1)
    if output_type == "FLOAT32":
        expect(rows(response), expected)
        return
    found = np.array([np.frombuffer(e.packed, element) for e in response.embeddings])
    assert not any(e.values for e in response.embeddings)
    if output_type == "FLOAT16":
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=TOLERANCE)
    elif output_type in ("INT8", "UINT8"):
        expect([e.scale for e in response.embeddings], scales)
        steps = np.round(127 * expected / scales[:, None]) + (128 if element == "<u1" else 0)
        # A component on the edge between two steps may fall on either.
        assert np.abs(found - steps).max() <= 1
        assert (found == steps).mean() > 0.98
    else:
        unsigned = (found.astype(np.int16) + 128 if element == "<i1" else found).astype(np.uint8)
        bits = np.unpackbits(unsigned, axis=1).astype(bool)
        clear = np.abs(expected) > TOLERANCE
        assert (bits == (expected > 0))[clear].all()
        assert clear.mean() > 0.95


@pytest.mark.parametrize("side", ["END", "START"])
def test_truncated_text_keeps_prompt_and_final_token(caller, side):
    words = " ".join(f"word{i}" for i in range(600))
    request = texts("docs", words, "short", input_type="QUERY", truncation=side)
    response = caller.call(EMBED, request)
    tokenizer, model = reference("embedder")
    head = plain(tokenizer, f"Instruct: {TASK}\nQuery:")
    whole = sequence(words, TASK)
    assert len(whole) > MAX_TOKENS
    kept = {
        "END": [*whole[: MAX_TOKENS - 1], whole[-1]],
        "START": [*head, *whole[len(head) - MAX_TOKENS :]],
    }[side]
    with torch.inference_mode():
        state = model(torch.tensor([kept])).last_hidden_state[0, -1].numpy()
    expect(rows(response), [state / np.linalg.norm(state), vector("short", TASK)])
    assert [e.truncated for e in response.embeddings] == [True, False]
    assert [e.num_tokens for e in response.embeddings] == [MAX_TOKENS, len(sequence("short", TASK))]
    assert response.usage.num_truncated == 1


def test_truncated_document_keeps_query_and_suffix(caller):
    document = " ".join(f"word{i}" for i in range(600))
    request = pairs("relevance", "which?", document, "b", max_tokens_per_document=8)
    request.truncation = common_pb2.END
    results = {r.index: r for r in caller.call(RERANK, request).results}
    tokenizer, _ = reference("reranker")
    kept = tokenizer.decode(plain(tokenizer, f" {document}")[:8])
    expect([results[0].score, results[1].score], [score("which?", kept[1:]), score("which?", "b")])
    assert [results[i].truncated for i in (0, 1)] == [True, False]


def test_alone_equals_in_a_mixed_batch(caller):
    batch = [f"{CORPUS[i % len(CORPUS)]} number {i}" for i in range(100)]
    together = rows(caller.call(EMBED, texts("docs", *batch)))
    for i in (0, 1, 46, 99):
        alone = rows(caller.call(EMBED, texts("docs", batch[i])))
        expect(together[i], alone[0])
        expect(alone[0], vector(batch[i]))
    # Vectors of different texts differ by far more than the tolerance: order is kept.
    reverse = rows(caller.call(EMBED, texts("docs", *batch[::-1])))
    expect(together, reverse[::-1])
    assert np.abs(together[:-1] - together[1:]).max(axis=1).min() > 100 * TOLERANCE


@pytest.mark.parametrize("input_type", ["DOCUMENT", "QUERY"])
def test_token_ids_equal_text(caller, input_type):
    tokenizer, _ = reference("embedder")
    options = {"input_type": input_type}
    given = [plain(tokenizer, text) for text in ("two words", CORPUS[0])]
    task = TASK if input_type == "QUERY" else None
    by_text = [vector(text, task) for text in ("two words", CORPUS[0])]
    expect(rows(caller.call(EMBED, ids("docs", *given, **options))), by_text)
    final = tokenizer.convert_tokens_to_ids(FINAL)
    completed = [[*each, final] for each in given]
    expect(rows(caller.call(EMBED, ids("docs", *completed, **options))), by_text)


@pytest.mark.parametrize(("input_type", "task"), [("DOCUMENT", None), ("QUERY", TASK)])
def test_tokenize_shows_what_is_computed(caller, input_type, task):
    request = model_pb2.TokenizeRequest(model="docs", texts=CORPUS, input_type=input_type)
    response = caller.call(TOKENIZE, request)
    assert [list(t.ids) for t in response.texts] == [sequence(text, task) for text in CORPUS]


def test_tokenize_shows_a_rerankers_whole_prompt(caller):
    request = model_pb2.TokenizeRequest(model="relevance", texts=["b", CORPUS[5]], query="a")
    found = [list(text.ids) for text in caller.call(TOKENIZE, request).texts]
    tokenizer, _ = reference("reranker")
    for text, row in zip(request.texts, found, strict=True):
        body = f"<Instruct>: {TASK}\n<Query>: a\n<Document>: {text}"
        start = plain(tokenizer, body)
        assert tokenizer.decode(row).count(body) == 1
        at = len(tokenizer.encode(tokenizer.decode(row).partition(body)[0]))
        assert row[at : at + len(start)] == start


def test_streams_answer_every_message_under_its_ids(caller):
    def requests():
        for number in range(20):
            message = embedding_pb2.EmbedStreamRequest(model="docs", input_type="DOCUMENT")
            for part in range(number % 3 + 1):
                message.items.add(text=f"text {number}/{part}", id=f"{number}/{part}")
            yield message

    found = {}
    for response in caller.stream(EMBED_STREAM, requests()):
        assert response.usage.num_items == len(response.embeddings)
        assert response.provenance.model == "docs"
        found |= {each.id: np.array(each.values) for each in response.embeddings}
    expected = [f"{number}/{part}" for number in range(20) for part in range(number % 3 + 1)]
    assert found.keys() == set(expected)
    expect([found[i] for i in expected], [vector(f"text {i}") for i in expected])


def test_rerank_streams_answer_under_their_ids(caller):
    def requests():
        for number in range(5):
            yield reranking_pb2.RerankStreamRequest(
                model="relevance", query=f"query {number}", documents=CORPUS[:3], id=str(number)
            )

    for response in caller.stream(RERANK_STREAM, requests()):
        expected = [score(f"query {response.id}", text) for text in CORPUS[:3]]
        expect([r.score for r in response.results], [expected[r.index] for r in response.results])


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (EMBED, texts("docs", "a")),
        (EMBED, texts("text-embedding-3-small", "a")),
        (RERANK, pairs("relevance", "a", "b")),
        (TOKENIZE, model_pb2.TokenizeRequest(model="docs", texts=["a"], input_type="QUERY")),
    ],
    ids=["embed", "alias", "rerank", "tokenize"],
)
def test_every_answer_says_what_made_it(caller, method, request_):
    response = caller.call(method, request_)
    asked = model_pb2.GetModelRequest(model=request_.model)
    served = caller.call("ModelService/GetModel", asked).model
    assert response.provenance.model == served.name
    assert response.provenance.contract_hash == served.contract_hash
    assert len(served.contract_hash) >= 16
    if method != TOKENIZE:
        assert response.usage.input_tokens > 0
        spent = response.timings
        assert 0 < spent.compute_nanoseconds < spent.total_nanoseconds


def test_the_served_contract_can_be_demanded(caller):
    served = caller.call("ModelService/GetModel", model_pb2.GetModelRequest(model="docs")).model
    request = texts("docs", "a", expected_contract_hash=served.contract_hash)
    expect(rows(caller.call(EMBED, request)), [vector("a")])
    request.expected_contract_hash = "0" * len(served.contract_hash)
    refused = caller.refusal(EMBED, request)
    assert (refused.code, refused.reason, refused.field) == (
        grpc.StatusCode.FAILED_PRECONDITION, "CONTRACT_MISMATCH", "expected_contract_hash",
    )  # fmt: skip
    assert served.contract_hash in refused.message


def test_the_sdk_gets_the_same(fleet):
    with Client(fleet.endpoint) as client:
        index = client.embed_documents("docs", CORPUS * 30)
        expect(index.vectors, [vector(text) for text in CORPUS] * 30)
        queries = client.embed_queries("docs", CORPUS, dimension=64, output_type="INT8")
        expected = np.array([vector(text, TASK, 64) for text in CORPUS])
        assert np.abs(queries.dequantized() - expected).max() < 0.01
        ranking = client.rerank("relevance", "what?", CORPUS)
        expected = [score("what?", text) for text in CORPUS]
        expect([r.score for r in ranking.results], sorted(expected, reverse=True))
        hashes = {model.name: model.contract_hash for model in client.models()}
        assert index.provenance.contract_hash == hashes["docs"]
        assert ranking.provenance.contract_hash == hashes["relevance"]


async def test_the_asynchronous_sdk_gets_the_same(fleet):
    async with AsyncClient(fleet.endpoint) as client:
        index = await client.embed_documents("docs", CORPUS)
        ranking = await client.rerank("relevance", "what?", CORPUS)
    expect(index.vectors, [vector(text) for text in CORPUS])
    expect([r.score for r in ranking.results], sorted(score("what?", t) for t in CORPUS)[::-1])
