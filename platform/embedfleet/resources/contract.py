"""What determines a vector space, and its hash.

Vectors compare only within one space, so everything that shapes one is hashed: two deployments with
equal hashes may share an index. How the hash is written is versioned in its first letters.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Final

from embedfleet.catalog import published
from embedfleet.messages import Role
from embedfleet.prompts import EMBEDDER_TEMPLATE, RERANKER_TEMPLATE
from embedfleet.resources.model_source import is_local

__all__ = ["CONTRACT_VERSION", "Contract", "contract_hash", "contract_of"]

CONTRACT_VERSION: Final = "v1"
_HASH_CHARACTERS: Final = 32
_LOCAL: Final = "local"

_FRAMES: Final = {
    Role.EMBEDDER: (EMBEDDER_TEMPLATE, "last-token", "l2"),
    Role.RERANKER: (RERANKER_TEMPLATE, "last-token", "sigmoid-yes-no"),
}
"""Template, pooling and normalisation by role: the published recipe of the family."""


@dataclass(frozen=True, slots=True)
class Contract:
    """Everything that a model's outputs depend on besides the input.

    Attributes:
        source: Hub name, folder, `file://` address or `embedded/NAME`.
        revision: Commit of a hub source; empty otherwise.
        weights_digest: Digest of every tensor's name, type, shape and bytes.
        tokenizer_digest: Digest of `tokenizer.json`.
        template: Name of the prompt around the text.
        pooling: How a sequence becomes one state.
        normalization: What is done to that state or score.
        weight_quantization: Type in which weights are held, resolved: never `auto`.
    """

    source: str
    revision: str
    weights_digest: str
    tokenizer_digest: str
    template: str
    pooling: str
    normalization: str
    weight_quantization: str


def contract_of(
    role: Role, source: str, revision: str, digests: tuple[str, str], weight_quantization: str
) -> Contract:
    """Build the contract of a model of the family.

    `digests` are those of the weights and of the tokenizer; `weight_quantization` is the type in
    which the weights were loaded, `auto` resolved.
    """
    weights_digest, tokenizer_digest = digests
    template, pooling, normalization = _FRAMES[role]
    return Contract(
        source=source,
        revision=revision,
        weights_digest=weights_digest,
        tokenizer_digest=tokenizer_digest,
        template=template,
        pooling=pooling,
        normalization=normalization,
        weight_quantization=weight_quantization,
    )


def contract_hash(contract: Contract) -> str:
    """Hash a contract: `v1:` and the first 128 bits of a SHA-256 over sorted, compact JSON.

    Spelling that means the same is made the same: published names regardless of case, and local
    files regardless of the folder they lie in, since their digests say what they are.
    """
    canonical = json.dumps(
        asdict(_canonical(contract)), ensure_ascii=False, separators=(",", ":"), sort_keys=True
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return f"{CONTRACT_VERSION}:{digest[:_HASH_CHARACTERS]}"


def _canonical(contract: Contract) -> Contract:
    if contract.weight_quantization == "auto":
        raise ValueError(
            "weight_quantization is auto: a contract names the type that was loaded. "
            "Resolve it before hashing."
        )
    known = published(contract.source)
    if known is not None:
        return replace(contract, source=known.source)
    if is_local(contract.source):
        for name in ("weights_digest", "tokenizer_digest"):
            if not getattr(contract, name):
                raise ValueError(f"{name} is empty: only digests identify local files. Set it.")
        return replace(contract, source=_LOCAL)
    return contract
