"""Serve's declarative REST interface: the whole configuration in, the whole state out.

Speaks to the dashboard of any Ray cluster. The configuration put is the whole truth: applications
that it does not list are deleted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import httpx

from embedfleet.errors import InvalidManifest, InvalidRequest, Unavailable

__all__ = ["ServeRest"]

_PATH: Final = "/api/serve/applications/"
_START_SECONDS: Final = 180.0
"""The first configuration also starts Serve itself, which takes a while on a busy machine."""
_MAX_CHARACTERS: Final = 2000


class ServeRest:
    """A Ray cluster's dashboard.

    Args:
        url: Such as `http://127.0.0.1:8265`.
        token: Ray's authentication token, empty where authentication is off.
    """

    def __init__(self, url: str, token: str = "") -> None:
        headers = {"x-ray-authorization": f"Bearer {token}"} if token else {}
        # A dashboard is never behind a proxy of the environment.
        self._client = httpx.Client(base_url=url, headers=headers, trust_env=False)
        self._url = url

    def __enter__(self) -> ServeRest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout_seconds: float = 30.0,
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, json=body, timeout=timeout_seconds)
        except httpx.HTTPError as error:
            cause = str(error) or type(error).__name__
            raise Unavailable(
                f"Ray's dashboard at {self._url} does not answer: {cause}. "
                "Check that the cluster runs and the address is right."
            ) from error
        if response.status_code in (401, 403):
            # Waiting does not mend it, unlike a dashboard that is not there yet.
            raise InvalidRequest(
                f"Ray's dashboard at {self._url} refuses the token (HTTP {response.status_code}). "
                "Give the cluster's token.",
                field="token",
            )
        return response

    def wait_reachable(
        self, timeout_seconds: float, is_alive: Callable[[], bool] = lambda: True
    ) -> str:
        """Wait until the dashboard answers and return Ray's version.

        Args:
            timeout_seconds: How long at most.
            is_alive: Tells whether waiting still makes sense.

        Raises:
            Unavailable: It did not answer in time, or Ray has ended.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not is_alive():
                raise Unavailable("Ray ended while it was starting. Look at ray.log.")
            try:
                response = self._call("GET", "/api/version")
                if response.status_code == 200:
                    return str(response.json()["ray_version"])
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            if time.monotonic() > deadline:
                raise Unavailable(f"Ray's dashboard at {self._url} is not ready. Look at its log.")
            time.sleep(0.2)

    def put(self, config: Mapping[str, Any], patience_seconds: float = _START_SECONDS) -> None:
        """Submit a whole Serve configuration, again and again while the dashboard is busy.

        Raises:
            InvalidManifest: Serve refuses it; the message is Serve's own.
            Unavailable: It was not taken in time.
        """
        deadline = time.monotonic() + patience_seconds
        while True:
            # A busy dashboard drops connections, and fails where a process of Serve's did while
            # that starts; putting the same truth again is harmless.
            try:
                response = self._call("PUT", _PATH, config, _START_SECONDS)
                if response.status_code == 400:
                    raise InvalidManifest(f"Serve refuses the configuration: {response.text}")
                _check(response)
                return
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def get(self) -> dict[str, Any]:
        """Read the state of every application, deployment and replica (`ServeInstanceDetails`)."""
        response = self._call("GET", _PATH)
        _check(response)
        details: dict[str, Any] = response.json()
        return details

    def delete(self) -> None:
        """Shut Serve down, with every application."""
        self._call("DELETE", _PATH)


def _check(response: httpx.Response) -> None:
    """Raise Unavailable unless Serve did what it was asked."""
    if response.status_code != 200:
        # The end of a traceback says what it was.
        said = response.text[-_MAX_CHARACTERS:]
        raise Unavailable(f"Serve answers HTTP {response.status_code}: {said}")
