"""From what a manifest calls a model to a folder on this machine.

A source is a local folder, a `file://` address, `embedded/NAME`, or a name on the hub pinned to a
commit: a branch can move, and two replicas must never serve two models under one name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from embedfleet import embedded
from embedfleet.catalog import published
from embedfleet.errors import CheckpointError

__all__ = ["HubOptions", "resolve"]

_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_WANTED: Final = ("*.safetensors", "*.json")
_EMBEDDED: Final = "embedded/"


@dataclass(frozen=True, slots=True)
class HubOptions:
    """How the hub is reached.

    Attributes:
        cache_folder: Where downloads are kept; None means the hub client's own place.
        offline: Use what the cache holds and ask nobody.
        endpoint: Address of a mirror; None means the hub client's own.
    """

    cache_folder: Path | None = None
    offline: bool = False
    endpoint: str | None = None


def resolve(source: str, revision: str = "", hub: HubOptions | None = None) -> Path:
    """Find or download a checkpoint.

    Args:
        source: Local folder, `file://` address, `embedded/NAME`, or hub name.
        revision: Commit of a hub source; empty means the one pinned for a published model.
        hub: How the hub is reached.

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
    return _from_hub(source, revision, hub or HubOptions())


def _embedded(source: str, revision: str) -> Path:
    here = Path(embedded.__file__).parent
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


def _from_hub(name: str, revision: str, hub: HubOptions) -> Path:
    known = published(name)
    commit = revision or (known.revision if known else "")
    if not _COMMIT.fullmatch(commit):
        raise CheckpointError(
            f"source {name} has revision {commit or 'unset'}; a hub source is pinned to a commit, "
            "40 hexadecimal digits, so that the model cannot change under the same name. Take it "
            "from the history of the model's page."
        )
    # Here, because the client takes half a second to import and local sources never need it.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            name,
            revision=commit,
            cache_dir=hub.cache_folder,
            local_files_only=hub.offline,
            endpoint=hub.endpoint,
            allow_patterns=list(_WANTED),
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        cache = hub.cache_folder or "the hub client's default folder"
        asked = "offline, so nobody was asked" if hub.offline else f"the hub answered: {error}"
        raise CheckpointError(
            f"{name} at {commit} is not in the cache ({cache}) and was not downloaded: {asked}. "
            "Check name, revision, network and access token, or point source at a local folder."
        ) from error
    return Path(folder)
