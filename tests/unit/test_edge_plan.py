"""What a changed Fleet does to the edge of this machine, by the field that changed."""

import pytest

from embedfleet.local.edge_plan import edge_changes
from embedfleet.rendering.plan import Impact
from embedfleet.resources import Fleet, parse_manifests

FILES = "certificateFile: /c.pem, privateKeyFile: /k.pem"


def fleet(spec: str) -> Fleet:
    text = f"apiVersion: embedfleet.io/v1alpha1\nkind: Fleet\nmetadata: {{name: f}}\nspec: {spec}\n"
    return parse_manifests(text).only_fleet()


@pytest.mark.parametrize(
    ("before", "after", "port", "found"),
    [
        ("{}", "{}", 9000, []),
        ("{}", "{grpc: {port: 9100}}", 9000, [("spec.grpc.port", 9000, 9100, Impact.NEW_CLUSTER)]),
        # Brought up with --port: the manifest's port was never used.
        ("{}", "{grpc: {port: 9100}}", 40_000, []),
        (
            "{}", f"{{tls: {{{FILES}}}}}", 9000,
            [
                ("spec.tls.certificateFile", None, "/c.pem", Impact.RECONFIGURE),
                ("spec.tls.privateKeyFile", None, "/k.pem", Impact.RECONFIGURE),
            ],
        ),
        (
            f"{{tls: {{{FILES}, clientCaFile: /a.pem}}}}", f"{{tls: {{{FILES}}}}}", 9000,
            [("spec.tls.clientCaFile", "/a.pem", None, Impact.RECONFIGURE)],
        ),
        # The router takes it too, and is compared with Serve's configuration.
        ("{}", "{grpc: {maxMessageBytes: 1048576}}", 9000, []),
    ],
)  # fmt: skip
def test_field_and_class(before, after, port, found):
    changes = list(edge_changes(fleet(before), fleet(after), port))
    assert [(each.field, each.before, each.after, each.impact) for each in changes] == found
    assert {each.resource for each in changes} <= {"Fleet/f"}


def test_a_fleet_is_read_back_as_it_was_applied():
    given = fleet(f"{{grpc: {{port: 9100}}, tls: {{{FILES}}}}}")
    assert Fleet.model_validate_json(given.model_dump_json(by_alias=True)) == given
