"""GET requests that begin in the middle, over HTTP: what the hub, registries and web servers speak.

Redirects are followed here, since what authorises a request is for the host it was meant for: hubs
and registries send readers on to storage elsewhere. Ranges as in RFC 9110, section 14.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

import httpx

from embedfleet.errors import FetchFailed, FetchInterrupted
from embedfleet.fetching.source import Stream

__all__ = ["RangeClient"]

_TIMEOUT: Final = httpx.Timeout(30, read=60)
_MAX_REQUESTS: Final = 8
_LATER: Final = (408, 425, 429)
_RANGE: Final = re.compile(r"bytes (\d+)-")

Authorize = Callable[[httpx.Response], Mapping[str, str]]


class RangeClient:
    """Reads from hosts that may ask who is there.

    Args:
        secrets: Headers that only the host first asked gets.
        remedy: What to do where the host refuses, as a sentence.
        authorize: Asked for new `secrets` when the host first asked answers 401, never another.
    """

    def __init__(
        self, secrets: Mapping[str, str], remedy: str, authorize: Authorize | None = None
    ) -> None:
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False)
        self._secrets = dict(secrets)
        self._remedy = remedy
        self._authorize = authorize

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._client.close()

    def get(self, address: str, accept: str = "*/*") -> httpx.Response:
        """Read a whole answer."""
        with self._answer(address, {"Accept": accept}) as response:
            try:
                response.read()
            except httpx.TransportError as error:
                raise _silent(address, error) from error
            return response

    @contextmanager
    def open(self, address: str, start: int) -> Iterator[Stream]:
        """Read a file from `start` on, or from its beginning if the host cannot do that."""
        plain = {"Accept-Encoding": "identity"}
        asked = {**plain, "Range": f"bytes={start}-"} if start else plain
        with self._answer(address, asked, unsatisfiable=bool(start)) as response:
            if response.status_code != 416:
                yield _stream(response, address)
                return
        with self._answer(address, plain) as response:
            yield _stream(response, address)

    @contextmanager
    def _answer(
        self, address: str, headers: Mapping[str, str], *, unsatisfiable: bool = False
    ) -> Iterator[httpx.Response]:
        try:
            response = self._send(httpx.URL(address), headers)
        except httpx.TransportError as error:
            raise _silent(address, error) from error
        except httpx.InvalidURL as error:
            raise FetchFailed(f"{address} leads to no address: {error}. {self._remedy}") from error
        try:
            status = response.status_code
            if status >= 500 or status in _LATER:
                raise FetchInterrupted(f"{_answered(address, response)}.")
            if status not in (200, 206) and not (unsatisfiable and status == 416):
                raise FetchFailed(f"{_answered(address, response)}. {self._remedy}")
            yield response
        finally:
            response.close()

    def _send(self, first: httpx.URL, headers: Mapping[str, str]) -> httpx.Response:
        target, authorized = first, False
        for _ in range(_MAX_REQUESTS):
            own = _origin(target) == _origin(first)
            secrets = self._secrets if own else {}
            request = self._client.build_request("GET", target, headers={**headers, **secrets})
            response = self._client.send(request, stream=True)
            if response.has_redirect_location:
                target = target.join(response.headers["Location"])
            elif response.status_code == 401 and own and self._authorize and not authorized:
                # Another host would say itself where the password is to be sent.
                authorized = True
                self._secrets = dict(self._authorize(response))
            else:
                return response
            response.close()
        raise FetchFailed(f"{first.host} redirects in a circle. {self._remedy}")


def _stream(response: httpx.Response, address: str) -> Stream:
    begins = _RANGE.match(response.headers.get("Content-Range", ""))
    start = int(begins.group(1)) if response.status_code == 206 and begins else 0
    return Stream(start, _chunks(response, address))


def _chunks(response: httpx.Response, address: str) -> Iterator[bytes]:
    try:
        # As they come: a chunk that has to be filled first is lost when its end does not come.
        yield from response.iter_raw()
    except httpx.TransportError as error:
        raise _silent(address, error) from error


def _origin(url: httpx.URL) -> tuple[Any, ...]:
    return url.scheme, url.host, url.port


def _shown(address: str) -> str:
    """Name an address without what may authorise its reader."""
    url = httpx.URL(address)
    return f"{url.scheme}://{url.netloc.decode()}{url.path}"


def _answered(address: str, response: httpx.Response) -> str:
    status = f"{response.status_code} {response.reason_phrase}".strip()
    if _origin(response.url) == _origin(httpx.URL(address)):
        return f"{_shown(address)} answered {status}"
    there = f"{response.url.scheme}://{response.url.netloc.decode()}"
    return f"{_shown(address)} leads to {there}, which gets no secret and answered {status}"


def _silent(address: str, error: httpx.TransportError) -> FetchInterrupted:
    return FetchInterrupted(
        f"{_shown(address)} broke off or did not answer ({type(error).__name__}: {error})."
    )
