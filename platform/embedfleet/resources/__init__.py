"""The custom resources, how manifests become them, and what identifies a vector space."""

from embedfleet.resources.contract import Contract, contract_hash
from embedfleet.resources.embedder import Embedder
from embedfleet.resources.fleet import Fleet
from embedfleet.resources.manifest import Manifests, load_manifests, parse_manifests
from embedfleet.resources.model_cache import ModelCache
from embedfleet.resources.model_route import ModelRoute
from embedfleet.resources.reranker import Reranker

__all__ = [
    "Contract",
    "Embedder",
    "Fleet",
    "Manifests",
    "ModelCache",
    "ModelRoute",
    "Reranker",
    "contract_hash",
    "load_manifests",
    "parse_manifests",
]
