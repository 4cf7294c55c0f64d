"""Every error that a user can meet, as one tree.

    EmbedfleetError                 code               retry
    ├── InvalidRequest              INVALID_ARGUMENT   no
    │   ├── WrongRole               INVALID_ARGUMENT   no     a role that the model has not
    │   └── InvalidExamples         INVALID_ARGUMENT   no     lines that nothing can be learnt from
    ├── InvalidManifest             INVALID_ARGUMENT   no     every problem at once
    ├── ModelNotFound               NOT_FOUND          no
    ├── ContractMismatch            FAILED_PRECONDITION no    not the vector space expected
    ├── GoldenMismatch              FAILED_PRECONDITION no    not the outputs of its contract
    ├── CheckpointError             FAILED_PRECONDITION no    not the files they should be
    ├── TrainingStopped             FAILED_PRECONDITION no    a run that cannot go on; nothing lost
    ├── FetchFailed                 FAILED_PRECONDITION no    files that a source does not give
    │   ├── DigestMismatch          FAILED_PRECONDITION no    other files than were asked for
    │   └── SecretMissing           FAILED_PRECONDITION no    credentials that are named, not there
    ├── FetchInterrupted            UNAVAILABLE        yes    a source that breaks off
    ├── EndpointFailed              FAILED_PRECONDITION no    a language model that does not answer
    ├── Unsupported                 UNIMPLEMENTED      no
    ├── Overloaded                  RESOURCE_EXHAUSTED yes    carries when to come back
    ├── TooLarge                    RESOURCE_EXHAUSTED no     the message is over a size limit
    ├── DeadlineExceeded            DEADLINE_EXCEEDED  no
    ├── Cancelled                   CANCELLED          no
    ├── Unavailable                 UNAVAILABLE        yes    replica starting, draining or gone
    └── EngineError                 INTERNAL           no
        ├── NonFiniteResult         INTERNAL           no     NaN or infinity is never a result
        └── OutOfMemory             RESOURCE_EXHAUSTED yes

The class knows its gRPC code by name and whether a retry can help, so that servers and clients
translate in one place each. A message names the field, the value, the limit and the next move.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "Cancelled",
    "CheckpointError",
    "ContractMismatch",
    "DeadlineExceeded",
    "DigestMismatch",
    "EmbedfleetError",
    "EndpointFailed",
    "EngineError",
    "FetchFailed",
    "FetchInterrupted",
    "GoldenMismatch",
    "InvalidExamples",
    "InvalidManifest",
    "InvalidRequest",
    "ModelNotFound",
    "NonFiniteResult",
    "OutOfMemory",
    "Overloaded",
    "Problem",
    "SecretMissing",
    "TooLarge",
    "TrainingStopped",
    "Unavailable",
    "Unsupported",
    "WrongRole",
]


class EmbedfleetError(Exception):
    """Base of the tree.

    Args:
        message: What a person reads: field, value, limit, next move.
        field: Path of the offending field as the caller wrote it, such as `items[3].text`.
        retry_after_seconds: When a retry has a chance; only on retryable errors.
    """

    code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, field: str = "", retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds

    def __reduce__(self) -> tuple[object, ...]:
        """Survive pickling between processes with field and retry hint."""
        return (_rebuild, (type(self), self.message, self.field, self.retry_after_seconds))

    @property
    def reason(self) -> str:
        """The class in the form of gRPC's ErrorInfo, such as `INVALID_REQUEST`."""
        name = type(self).__name__
        return "".join("_" + c if c.isupper() and i else c for i, c in enumerate(name)).upper()


def _rebuild(
    kind: type[EmbedfleetError], message: str, field: str, retry_after_seconds: float | None
) -> EmbedfleetError:
    return kind(message, field=field, retry_after_seconds=retry_after_seconds)


class InvalidRequest(EmbedfleetError):
    """The request can never succeed as written."""

    code = "INVALID_ARGUMENT"


class WrongRole(InvalidRequest):
    """An embedding was asked of a reranker, or a score of an embedder."""


class InvalidExamples(InvalidRequest):
    """Lines of a data file cannot be trained on; the message is one line a problem."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a manifest.

    Attributes:
        file: Where the document was read from.
        document: Position of the YAML document in its file, from 1.
        kind: The resource's kind, if it could be read.
        name: The resource's name, if it could be read.
        path: Field path in the manifest's own spelling, such as `spec.scaling.maxReplicas`.
        value: What was found, as the user wrote it; empty if the field is absent.
        limit: What is allowed.
        remedy: What to do next.
    """

    file: str
    document: int
    kind: str
    name: str
    path: str
    value: str
    limit: str
    remedy: str

    def __str__(self) -> str:
        """One line: file, document, resource, path, value, limit, remedy."""
        resource = "/".join(part for part in (self.kind, self.name) if part)
        where = f"{self.file}[{self.document}]" + (f" {resource}" if resource else "")
        found = f" is {self.value}" if self.value else ""
        return f"{where}: {self.path}{found}: {self.limit}. {self.remedy}"


class InvalidManifest(EmbedfleetError):
    """What is wanted cannot be applied: it breaks a schema, contradicts itself, or does not fit.

    `problems` holds all that was found in manifests as they were read. It is empty where the
    manifests are right and the place they are applied to refuses them; then the message says why.
    """

    code = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        retry_after_seconds: float | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message, field=field, retry_after_seconds=retry_after_seconds)
        self.problems = problems

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> InvalidManifest:
        """Build the error whose message is one line a problem."""
        return cls("\n".join(str(problem) for problem in problems), problems=problems)


class ModelNotFound(EmbedfleetError):
    """No model of that name is served; the message lists those that are."""

    code = "NOT_FOUND"


class ContractMismatch(EmbedfleetError):
    """The caller expects another vector contract than the one served."""

    code = "FAILED_PRECONDITION"


class GoldenMismatch(EmbedfleetError):
    """A replica's outputs are not those that its contract gave when it was first served."""

    code = "FAILED_PRECONDITION"


class CheckpointError(EmbedfleetError):
    """A checkpoint's files are missing, damaged, unsafe or of another architecture."""

    code = "FAILED_PRECONDITION"


class TrainingStopped(EmbedfleetError):
    """A training run cannot go on or cannot begin; its last good checkpoint is kept."""

    code = "FAILED_PRECONDITION"


class FetchFailed(EmbedfleetError):
    """A model's files cannot be had: trying again unchanged cannot help."""

    code = "FAILED_PRECONDITION"


class DigestMismatch(FetchFailed):
    """Files are not those whose digests are given."""


class SecretMissing(FetchFailed):
    """Credentials that a source names are not there."""


class FetchInterrupted(EmbedfleetError):
    """A source broke off or did not answer; what was fetched is kept."""

    code = "UNAVAILABLE"
    retryable = True


class EndpointFailed(EmbedfleetError):
    """A language model's endpoint refuses or fails call after call; its answers so far are kept."""

    code = "FAILED_PRECONDITION"


class Unsupported(EmbedfleetError):
    """The call is part of the contract but not implemented by this release."""

    code = "UNIMPLEMENTED"


class Overloaded(EmbedfleetError):
    """The queue is full or the predicted wait exceeds the deadline."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class TooLarge(EmbedfleetError):
    """A message is over a size limit: sending it again unchanged cannot help."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(EmbedfleetError):
    """The deadline passed before the result was ready."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(EmbedfleetError):
    """The caller went away."""

    code = "CANCELLED"


class Unavailable(EmbedfleetError):
    """No replica can take the call now."""

    code = "UNAVAILABLE"
    retryable = True


class EngineError(EmbedfleetError):
    """The engine failed; its own message is kept."""


class NonFiniteResult(EngineError):
    """A result held NaN or infinity."""


class OutOfMemory(EngineError):
    """The device had no room for the batch, even split."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True
