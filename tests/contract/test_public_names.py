"""Names that others import: a change here is a change for them. The client's are pinned with it."""

import subprocess
import sys

import embedfleet.engine
import embedfleet.resources


def test_engine():
    assert sorted(embedfleet.engine.__all__) == [
        "EngineOptions",
        "LocalEmbedder",
        "LocalReranker",
        "load_embedder",
        "load_reranker",
    ]
    assert all(hasattr(embedfleet.engine, name) for name in embedfleet.engine.__all__)


def test_resources():
    assert sorted(embedfleet.resources.__all__) == [
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
    assert all(hasattr(embedfleet.resources, name) for name in embedfleet.resources.__all__)


def test_importing_does_not_load_a_tensor_library():
    """A client, a validator of manifests or a proxy of Serve has no use for torch."""
    program = (
        "import sys, embedfleet.client, embedfleet.resources, embedfleet.engine, "
        "embedfleet.serving.services; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
