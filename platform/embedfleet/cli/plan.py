"""`embedfleet plan`: what applying manifests would do to what runs, here or on Kubernetes."""

from __future__ import annotations

import os
import sys
from importlib.metadata import entry_points

import click

from embedfleet.cli.options import contract_option, files_option
from embedfleet.cli.state import choose_fleet
from embedfleet.config import Settings
from embedfleet.errors import Unavailable
from embedfleet.local.changing import durations, plan_against
from embedfleet.resources import Manifests, load_manifests

__all__ = ["plan"]

_GROUP = "embedfleet.planners"


@click.command()
@files_option
@contract_option
@click.option(
    "--kubernetes", is_flag=True, help="Ask a Kubernetes cluster instead of this machine."
)
@click.option(
    "--kubeconfig",
    envvar="KUBECONFIG",
    default="~/.kube/config",
    show_default=True,
    show_envvar=True,
    help="File of its address and your credentials.",
)
@click.option(
    "--namespace",
    "-n",
    help="Namespace of manifests that name none, with --kubernetes.  [default: default]",
)
def plan(
    files: tuple[str, ...],
    allow_contract_change: bool,
    kubernetes: bool,
    kubeconfig: str,
    namespace: str | None,
) -> None:
    """Show what applying manifests would change.

    Classifies every difference between the manifests and what runs, and changes nothing.
    """
    if namespace and not kubernetes:
        raise click.UsageError("--namespace is for --kubernetes. Give both, or neither.")
    if allow_contract_change and kubernetes:
        raise click.UsageError(
            "--allow-contract-change is for fleets of this machine: on Kubernetes a changed "
            "contract takes another resource. Leave it out."
        )
    manifests = load_manifests(files, sys.stdin)
    if kubernetes:
        click.echo(_plan_on_kubernetes(manifests, kubeconfig, namespace or "default"))
        return
    state = choose_fleet(Settings.load(), manifests.only_fleet().name)
    change = plan_against(manifests, state, allow_contract_change=allow_contract_change)
    click.echo(change.told(durations(state)))


def _plan_on_kubernetes(manifests: Manifests, kubeconfig: str, namespace: str) -> str:
    """Leave it to the operator's package, which the platform does not import."""
    (planner,) = entry_points(group=_GROUP, name="kubernetes")
    try:
        plan_on_kubernetes = planner.load()
    except ModuleNotFoundError as missing:
        raise Unavailable(
            f"--kubernetes needs {missing.name}: pip install 'embedfleet[operator]'."
        ) from missing
    told: str = plan_on_kubernetes(manifests, os.path.expanduser(kubeconfig), namespace)
    return told
