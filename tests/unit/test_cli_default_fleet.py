"""Which fleet a command means when it names none."""

from dataclasses import fields

import pytest

from embedfleet.cli.state import choose_fleet, default_endpoint
from embedfleet.config import Settings
from embedfleet.errors import InvalidRequest, Unavailable
from embedfleet.local.ports import LocalPorts
from embedfleet.local.state import FleetState


def settings(home, **environment):
    return Settings.load({"EMBEDFLEET_HOME": str(home), **environment})


def running(home, *names):
    for number, name in enumerate(names):
        FleetState(
            name=name,
            fleet_id=name,
            endpoint=f"127.0.0.1:{9000 + number}",
            dashboard="",
            token="",
            ports=LocalPorts(*[0] * len(fields(LocalPorts))),
            folder="",
            owns_ray=True,
        ).save(home)


def test_the_only_fleet_is_meant(tmp_path):
    running(tmp_path, "laptop")
    assert default_endpoint(settings(tmp_path)) == "127.0.0.1:9000"


def test_one_of_several_is_chosen_by_name(tmp_path):
    running(tmp_path, "a", "b")
    assert default_endpoint(settings(tmp_path), "b") == "127.0.0.1:9001"
    with pytest.raises(InvalidRequest, match=r"a, b\. Choose with --fleet"):
        default_endpoint(settings(tmp_path))


def test_the_environment_wins_over_what_runs_but_not_over_a_name(tmp_path):
    running(tmp_path, "a", "b")
    configured = settings(tmp_path, EMBEDFLEET_ENDPOINT="far:443")
    assert default_endpoint(configured) == "far:443"
    assert default_endpoint(configured, "a") == "127.0.0.1:9000"


@pytest.mark.parametrize(
    ("names", "name", "said"),
    [
        ([], "", "No fleet runs on this machine"),
        ([], "c", "No fleet runs on this machine"),
        (["a", "b"], "c", "Fleet 'c' does not run on this machine; running: a, b"),
    ],
)
def test_no_such_fleet(tmp_path, names, name, said):
    running(tmp_path, *names)
    for choose in (choose_fleet, default_endpoint):
        with pytest.raises(Unavailable, match=said) as refused:
            choose(settings(tmp_path), name)
        assert "embedfleet up -f PATH" in refused.value.message
        # What changes a fleet takes no endpoint: only calls are told of one.
        assert ("--endpoint" in refused.value.message) is (choose is default_endpoint)


def test_a_configured_endpoint_is_no_fleet_of_this_machine(tmp_path):
    """`down` and `apply` must not take the endpoint's fleet for one that they can change."""
    running(tmp_path, "a")
    assert choose_fleet(settings(tmp_path, EMBEDFLEET_ENDPOINT="far:443")).name == "a"


@pytest.mark.parametrize(
    ("environment", "home"),
    [
        ({"EMBEDFLEET_HOME": "/a/b"}, "/a/b"),
        ({"XDG_STATE_HOME": "/x"}, "/x/embedfleet"),
        ({"EMBEDFLEET_HOME": "/a/b", "XDG_STATE_HOME": "/x"}, "/a/b"),
    ],
)
def test_where_states_are_kept(environment, home):
    assert str(Settings.load(environment).home) == home
