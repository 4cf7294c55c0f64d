"""What Serve registers, what stubs describe and what the protos say are one contract."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2

from embedfleet import messages
from embedfleet.compat import kserve_pb2, tei_pb2
from embedfleet.rendering.serve import GRPC_SERVICER_FUNCTIONS
from embedfleet.serving import services
from embedfleet.serving.ingress import Ingress
from embedfleet.v1 import common_pb2, embedding_pb2, model_pb2, reranking_pb2, retrieval_pb2

ROOT = Path(__file__).parents[2]

FILES = (
    embedding_pb2, reranking_pb2, model_pb2, retrieval_pb2, kserve_pb2, tei_pb2, health_pb2,
)  # fmt: skip
PUBLISHED = {
    service.full_name: service
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
}


def test_stubs_are_what_the_protos_compile_to():
    checked = subprocess.run(
        [sys.executable, ROOT / "protos" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_every_published_service_is_registered_and_no_other():
    assert services.SERVICES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("service", sorted(PUBLISHED))
def test_methods_are_those_of_the_proto(service):
    published = {
        method.name: (
            method.input_type.full_name.removeprefix("embedfleet.v1."),
            method.client_streaming,
            method.server_streaming,
        )
        for method in PUBLISHED[service].methods
    }
    registered = {
        name: (
            rpc.request.DESCRIPTOR.full_name.removeprefix("embedfleet.wire.").removeprefix(
                "embedfleet.v1."
            ),
            rpc.client_stream,
            rpc.server_stream,
        )
        for name, rpc in services.SERVICES[service].items()
    }
    # On the wire a client stream with one answer is a stream with one answer.
    assert registered == {
        name: (request, client, client or server)
        for name, (request, client, server) in published.items()
    }


def test_each_service_has_the_function_that_registers_it():
    class Server:
        def __init__(self):
            self.names = set()

        def add_generic_rpc_handlers(self, handlers):
            self.names.update(handler.service_name() for handler in handlers)

    server = Server()
    for path in GRPC_SERVICER_FUNCTIONS:
        module, _, name = path.partition(":")
        getattr(importlib.import_module(module), name)(Ingress({}, {}), server)
    assert server.names == PUBLISHED.keys()


def test_methods_of_one_name_are_of_one_kind():
    """Serve calls the ingress method of a name, whichever service was asked."""
    kinds = {}
    for rpcs in services.SERVICES.values():
        for name, rpc in rpcs.items():
            kinds.setdefault(name, set()).add(rpc.server_stream)
    assert {name for name, kind in kinds.items() if len(kind) > 1} == set()


@pytest.mark.parametrize(
    ("kind", "published"),
    [
        (messages.InputType, common_pb2.InputType),
        (messages.OutputType, common_pb2.OutputType),
        (messages.Truncation, common_pb2.Truncation),
        (messages.Priority, common_pb2.Priority),
        (messages.Role, model_pb2.Role),
    ],
)
def test_choices_are_the_published_enums(kind, published):
    names = [name for name, number in published.items() if number]
    assert [member.value.upper() for member in kind] == names
    assert [name for name, number in published.items() if not number] == [
        f"{''.join('_' + c if c.isupper() else c for c in kind.__name__).upper()[1:]}_UNSPECIFIED"
    ]


def test_reflection_can_describe_every_service():
    pool = descriptor_pool.Default()
    assert {pool.FindServiceByName(name).full_name for name in PUBLISHED} == PUBLISHED.keys()
