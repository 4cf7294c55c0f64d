"""Both clients and a model that takes fewer items in one request than they would send."""

from collections import Counter

import pytest
from grpc_status import rpc_status

from embedfleet import errors
from embedfleet.client import ClientConfig
from embedfleet.status import to_status
from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2, reranking_pb2

LIMIT = 3
SEVENS = ClientConfig(max_batch_items=7, max_in_flight=2)
TEXTS = [f"{i}" * (i + 1) for i in range(23)]


class Fleet:
    """Takes `limit` entries a request, as a replica would, and describes itself by `said`."""

    def __init__(self, limit=LIMIT, said=None):
        self.calls = Counter()
        self.limit, self.said = limit, limit if said is None else said

    def methods(self):
        return {
            "Embed": self._embed,
            "Rerank": self._rerank,
            "Tokenize": self._tokenize,
            "GetModel": self._model,
        }

    def _check(self, method, field, entries, context):
        refused = len(entries) > self.limit
        self.calls[method, "refused" if refused else "taken"] += 1
        if refused:
            said = f"{field} has {len(entries)} entries; a request takes 1 to {self.limit}."
            error = errors.InvalidRequest(said, field=field)
            context.abort_with_status(rpc_status.to_status(to_status(error)))

    def _embed(self, request, context):
        self._check("Embed", "items", request.items, context)
        return embedding_pb2.EmbedResponse(
            embeddings=[
                embedding_pb2.Embedding(values=[len(item.text)])
                if item.text != "bad"
                else embedding_pb2.Embedding(
                    error=common_pb2.ItemError(code=3, reason="INVALID_REQUEST", message="bad")
                )
                for item in request.items
            ],
            dimension=1,
            output_type=common_pb2.FLOAT32,
        )

    def _rerank(self, request, context):
        self._check("Rerank", "documents", request.documents, context)
        return reranking_pb2.RerankResponse(
            results=[
                reranking_pb2.RerankResult(index=index, score=len(document))
                for index, document in enumerate(request.documents)
            ]
        )

    def _tokenize(self, request, context):
        self._check("Tokenize", "texts", request.texts, context)
        return model_pb2.TokenizeResponse(
            texts=[model_pb2.TokenizedText(ids=[len(text)]) for text in request.texts]
        )

    def _model(self, request, context):
        self.calls["GetModel", request.model] += 1
        model = model_pb2.Model(
            name="docs", role=model_pb2.EMBEDDER, max_items_per_request=self.said
        )
        return model_pb2.GetModelResponse(model=model)


@pytest.mark.parametrize("num_texts", [4, 7, 23], ids=["part-of-a-batch", "one", "several"])
def test_a_refused_batch_is_sent_in_parts_and_the_limit_is_kept(serve, connect, num_texts):
    fleet, texts = Fleet(), TEXTS[:num_texts]
    with connect(serve(fleet.methods()), config=SEVENS) as client:
        found = client.embed("docs", texts, input_type="DOCUMENT")
        assert found.vectors[:, 0].tolist() == [len(text) for text in texts]
        # No more than were under way at once.
        assert 1 <= fleet.calls["GetModel", "docs"] <= SEVENS.max_in_flight
        assert 1 <= fleet.calls["Embed", "refused"] <= SEVENS.max_in_flight
        before = fleet.calls.copy()
        again = client.embed("docs", texts, input_type="DOCUMENT")
        assert again.vectors.tolist() == found.vectors.tolist()
        assert set(fleet.calls - before) == {("Embed", "taken")}


def test_places_are_those_of_the_whole_input(serve, connect):
    texts = TEXTS.copy()
    texts[12] = "bad"
    with connect(serve(Fleet().methods()), config=SEVENS) as client:
        parts = list(
            client.embed_batches("docs", texts, input_type="DOCUMENT", on_item_error="keep")
        )
    assert [start for start, _ in parts] == sorted({start for start, _ in parts})
    assert [start + row for start, part in parts for row in range(len(part))] == list(range(23))
    assert [index for _, part in parts for index in part.errors] == [12]
    assert max(len(part) for _, part in parts) == LIMIT


def test_documents_and_tokenized_texts_too(serve, connect):
    with connect(serve(Fleet().methods()), config=SEVENS) as client:
        ranking = client.rerank("docs", "q", TEXTS, top_n=2)
        assert [result.index for result in ranking.results] == [22, 21]
        ids = client.tokenize("docs", TEXTS, input_type="DOCUMENT").texts
        assert [text.ids.tolist() for text in ids] == [[len(text)] for text in TEXTS]


@pytest.mark.parametrize(
    ("limit", "said", "asked"),
    [
        (3, 0, {("Embed", "refused"): 1, ("GetModel", "docs"): 1}),
        (3, 2048, {("Embed", "refused"): 1, ("GetModel", "docs"): 1}),
        (0, 0, {("Embed", "refused"): 1}),
    ],
    ids=["says-nothing", "says-otherwise", "takes-not-even-one"],
)
def test_a_refusal_that_parts_do_not_mend_is_raised(serve, connect, limit, said, asked):
    fleet = Fleet(limit, said)
    texts = TEXTS[:4] if limit else TEXTS[:1]
    refused = pytest.raises(errors.InvalidRequest, match=f"a request takes 1 to {limit}")
    with connect(serve(fleet.methods())) as client, refused:
        client.embed("docs", texts, input_type="DOCUMENT")
    assert fleet.calls == asked


def test_a_limit_that_is_lowered_again_is_learned_again(serve, connect):
    fleet = Fleet()
    with connect(serve(fleet.methods()), config=SEVENS) as client:
        for limit in (3, 2):
            fleet.limit = fleet.said = limit
            found = client.embed("docs", TEXTS, input_type="DOCUMENT")
            assert found.vectors[:, 0].tolist() == [len(text) for text in TEXTS]
