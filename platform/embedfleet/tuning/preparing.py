"""What a run needs, checked against one another before anything is learnt or written."""

from __future__ import annotations

from dataclasses import dataclass

from embedfleet.checkpoint import Checkpoint
from embedfleet.errors import InvalidRequest
from embedfleet.messages import Role
from embedfleet.tokenization import Tokenizer
from embedfleet.tuning.batches import Batches, Share
from embedfleet.tuning.corpus import Corpus, index_corpus
from embedfleet.tuning.drawing import EmbedderBatches, RerankerBatches, Source
from embedfleet.tuning.models import TrainedModel, load_model
from embedfleet.tuning.sampling import Plan, plan_batches
from embedfleet.tuning.settings import EmbedderSettings, RerankerSettings

__all__ = ["Prepared", "prepare"]

Settings = EmbedderSettings | RerankerSettings


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that a run needs, checked; nothing is written yet."""

    settings: Settings
    corpus: Corpus
    plan: Plan
    model: TrainedModel
    checkpoint: Checkpoint
    tokenizer: Tokenizer
    batches: Batches

    @property
    def role(self) -> Role:
        """Embedder or reranker."""
        return self.settings.role


def prepare(settings: Settings, share: Share | None = None) -> Prepared:
    """Check data, model and tokenizer against one another, and plan the batches.

    Raises:
        CheckpointError: The model's files are not what they should be, or do not fit.
        InvalidExamples: Data cannot be trained on.
        InvalidRequest: Settings do not suit the model or the data.
    """
    model, tokenizer, checkpoint = load_model(settings, settings.role)
    _check_dimensions(settings, checkpoint.config.hidden_size)
    corpus = index_corpus(settings.data)
    plan = plan_batches(corpus, settings)
    source = Source(corpus, plan, share or Share(), settings.seed)
    longest = checkpoint.config.max_tokens
    batches: Batches
    if isinstance(settings, EmbedderSettings):
        batches = EmbedderBatches(source, settings.sequence, tokenizer, longest)
    else:
        batches = RerankerBatches(source, settings.sequence, tokenizer, longest)
    return Prepared(settings, corpus, plan, model, checkpoint, tokenizer, batches)


def _check_dimensions(settings: Settings, native: int) -> None:
    if not isinstance(settings, EmbedderSettings):
        return
    for index, each in enumerate(settings.loss.matryoshka):
        if each.dimension > native:
            field = f"loss.matryoshka[{index}].dimension"
            raise InvalidRequest(
                f"{field} is {each.dimension}; the model's vectors have {native} components. "
                "Lower it.",
                field=field,
            )
