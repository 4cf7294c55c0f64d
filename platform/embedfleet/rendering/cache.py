"""What a ModelCache's Job is told and what it tells: the same words where written and where read.

Credentials come as environment variables: a Secret that is missing then holds the pod back until it
is there, and the kubelet says which. The result goes where the kubelet picks a container's last
words up, which it cuts at 4,096 bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = [
    "EXIT_FINAL",
    "EXIT_RETRY",
    "GCS_KEY",
    "HEADER_PREFIX",
    "HUB_TOKEN",
    "REGISTRY_CREDENTIALS",
    "S3_KEY_ID",
    "S3_SECRET_KEY",
    "CacheReport",
    "FetchResult",
]

HUB_TOKEN: Final = "HF_TOKEN"
S3_KEY_ID: Final = "AWS_ACCESS_KEY_ID"
S3_SECRET_KEY: Final = "AWS_SECRET_ACCESS_KEY"
GCS_KEY: Final = "GOOGLE_SERVICE_ACCOUNT_KEY"
REGISTRY_CREDENTIALS: Final = "EMBEDFLEET_REGISTRY_CREDENTIALS"
"""What a Secret of type kubernetes.io/dockerconfigjson holds."""

HEADER_PREFIX: Final = "EMBEDFLEET_HEADER_"
"""What follows is the header's name, in the spelling in which it is sent."""

EXIT_RETRY: Final = 1
EXIT_FINAL: Final = 2
"""Trying again unchanged cannot help."""

_MAX_BYTES: Final = 4096


class FetchResult(StrEnum):
    """How it ended; each is also a reason of conditions."""

    FETCHED = "Fetched"
    FETCH_FAILED = "FetchFailed"
    DIGEST_MISMATCH = "DigestMismatch"
    SECRET_MISSING = "SecretMissing"


class CacheReport(BaseModel):
    """The last words of a Job's pod.

    Attributes:
        message: What a person reads.
        num_bytes: Of all files; 0 unless they were fetched, as the rest.
        revision: Commit of a hub source; empty for others.
        weights_digest: As the contract has it.
        tokenizer_digest: SHA-256 of `tokenizer.json`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    result: FetchResult
    message: str
    num_bytes: int = 0
    revision: str = ""
    weights_digest: str = ""
    tokenizer_digest: str = ""

    def to_text(self) -> str:
        """Write it in at most 4,096 bytes; a longer message is cut."""
        excess = len(self.model_dump_json().encode()) - _MAX_BYTES
        kept = self.message.encode()
        report = self
        while excess > 0:
            # One byte takes up to six in JSON, so less than this would be too much.
            kept = kept[: -(excess // 6 + 1)]
            text = kept.decode(errors="ignore") + "..."
            report = self.model_copy(update={"message": text})
            excess = len(report.model_dump_json().encode()) - _MAX_BYTES
        return report.model_dump_json()

    @classmethod
    def of_text(cls, text: str) -> CacheReport | None:
        """Read it; None if it is something else, such as what a crash left."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None
