"""From what a manifest calls a model to a folder on this machine.

A source is a local folder, a `file://` address, `embedded/NAME`, or a name on the hub pinned to a
commit: a branch can move, and two replicas must never serve two models under one name. The hub's
client reads its own environment: `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT`, `HF_TOKEN`.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from embedfleet.catalog import published
from embedfleet.errors import CheckpointError

__all__ = ["resolve"]

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_WANTED: Final = ("*.safetensors", "*.json")
_EMBEDDED: Final = "embedded/"


def resolve(source: str, revision: str = "") -> Path:
    """Find or download a checkpoint.

    Args:
        source: Local folder, `file://` address, `embedded/NAME`, or hub name.
        revision: Commit of a hub source; empty means the one pinned for a published model.

    Raises:
        CheckpointError: It is not there, not pinned, or cannot be downloaded.
    """
    if source.startswith(_EMBEDDED):
        return _embedded(source, revision)
    if source.startswith("file:"):
        return _local(_path_of(source), source, revision)
    path = Path(source).expanduser()
    if path.is_dir() or source.startswith(("/", ".", "~")) or not _HUB_NAME.fullmatch(source):
        return _local(path, source, revision)
    return _from_hub(source, revision)


def _embedded(source: str, revision: str) -> Path:
    here = Path(str(resources.files("embedfleet.embedded")))
    names = sorted(folder.parent.name for folder in here.glob("*/config.json"))
    name = source.removeprefix(_EMBEDDED)
    if name not in names:
        raise CheckpointError(
            f"source is {source}; embedded models are "
            f"{', '.join(_EMBEDDED + known for known in names)}. Choose one of them."
        )
    return _local(here / name, source, revision)


def _path_of(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise CheckpointError(
            f"source is {address}; a file address names an absolute folder of this machine. Write "
            "it as file:///folder/of/the/checkpoint."
        )
    return Path(unquote(parts.path))


def _local(path: Path, source: str, revision: str) -> Path:
    if revision:
        raise CheckpointError(
            f"source {source} is a folder, which has no revisions, but revision is {revision}. "
            "Leave revision out."
        )
    if not path.is_dir():
        raise CheckpointError(
            f"source {source} is not a folder on this machine (looked at {path.absolute()}), nor a "
            "hub name such as Qwen/Qwen3-Embedding-0.6B. Check the spelling."
        )
    return path.resolve()


def _from_hub(name: str, revision: str) -> Path:
    known = published(name)
    commit = revision or (known.revision if known else "")
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(
            f"source {name} has revision {commit or 'unset'}; a hub source is pinned to a commit, "
            "40 hexadecimal digits, so that the model cannot change under the same name. Take it "
            "from the history of the model's page; where no revision can be given, name a folder."
        )
    # Here, because the client takes half a second to import and local sources never need it.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(name, revision=commit, allow_patterns=list(_WANTED))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        asked = f"the hub answered: {error}"
        if constants.HF_HUB_OFFLINE:
            asked = "HF_HUB_OFFLINE is set, so nobody was asked"
        raise CheckpointError(
            f"{name} at {commit} is not in the cache ({constants.HF_HUB_CACHE}) and was not "
            f"downloaded: {asked}. "
            "Check name, revision, network and access token, or point source at a local folder."
        ) from error
    return Path(folder)
