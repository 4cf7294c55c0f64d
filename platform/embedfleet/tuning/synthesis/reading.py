"""From a YAML file and what the command line changes in it to settings, or to every problem.

Also the endpoint's key: settings name where it is, never what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embedfleet.errors import InvalidManifest, SecretMissing
from embedfleet.resources.documents import Document
from embedfleet.resources.problems import judge
from embedfleet.tuning.documents import lay_over, only_document
from embedfleet.tuning.synthesis.endpoint_settings import EndpointSettings
from embedfleet.tuning.synthesis.settings import SynthesisSettings

__all__ = ["read_key", "read_settings"]


def read_settings(path: Path | None, changes: Mapping[str, Any]) -> SynthesisSettings:
    """Read settings, with changes laid over them.

    Args:
        path: YAML file of one document; None where the changes are all there is.
        changes: Values by path in the file's spelling, such as `endpoint.baseUrl`.

    Raises:
        InvalidManifest: Every problem at once.
        InvalidRequest: A change names a field inside a value.
        OSError: The file cannot be read.
    """
    document = Document("options", 1, {}) if path is None else only_document(path)
    content = document.content
    for place, value in changes.items():
        lay_over(content, place, value)
    found = judge(SynthesisSettings, document)
    if isinstance(found, tuple):
        raise InvalidManifest.of(found)
    return found


def read_key(settings: EndpointSettings, environment: Mapping[str, str]) -> str | None:
    """Read the endpoint's key from where the settings say; None where they name no place.

    Raises:
        SecretMissing: It is not there, is empty, or cannot stand in a header.
    """
    if settings.key_variable is not None:
        where = f"endpoint.keyVariable is {settings.key_variable}, but that variable"
        key = environment.get(settings.key_variable, "")
    elif settings.key_file is not None:
        where = f"endpoint.keyFile is {settings.key_file}, but that file"
        try:
            key = Path(settings.key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SecretMissing(
                f"{where} cannot be read: {error}. Write the key into it.", field="endpoint.keyFile"
            ) from error
    else:
        return None
    key = key.strip()
    if not key:
        raise SecretMissing(f"{where} is empty. Put the endpoint's key there.", field="endpoint")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SecretMissing(
            f"{where} holds {len(key)} characters that are not one key: a key has no blanks, line "
            "ends or other than ASCII characters. Put only the key there.",
            field="endpoint",
        )
    return key
