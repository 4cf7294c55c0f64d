"""Servers of model files on this machine: each is a function from what is asked to an answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NO_LIMIT = 1 << 60


@dataclass(frozen=True)
class Asked:
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def start(self) -> int:
        """First byte that is asked for; 0 for all of them."""
        return int(self.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


Answers = Callable[[Asked], Answer]
MISSING = Answer(b"no such thing", 404)


@dataclass
class Served:
    """A server that runs, and what was asked of it."""

    url: str
    asked: list[Asked] = field(default_factory=list)
    continued: Event = field(default_factory=Event)

    def starts(self, path: str) -> list[int]:
        return [each.start for each in self.asked if each.path.endswith(path)]


@contextmanager
def serving(
    answers: Answers,
    *,
    ranges: bool = True,
    cut: Callable[[Asked, int], int] = lambda asked, earlier: NO_LIMIT,
    hang: bool = False,
) -> Iterator[Served]:
    """Serve until the block ends.

    `cut` says after how many bytes an answer breaks off, given how often its path was asked for
    before; with `hang` it is held there instead until `continued` is set.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            headers = {key.lower(): value for key, value in self.headers.items()}
            asked = Asked(unquote(parts.path), query, headers)
            earlier = sum(each.path == asked.path for each in served.asked)
            served.asked.append(asked)
            answer = answers(asked)
            body, status, more = answer.body, answer.status, dict(answer.headers)
            if ranges and asked.start and status == 200:
                status = 206 if asked.start < len(body) else 416
                more["Content-Range"] = f"bytes {asked.start}-{len(body) - 1}/{len(body)}"
                body = body[asked.start :]
            self.send_response(status)
            for name, value in {**more, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            limit = cut(asked, earlier)
            self.wfile.write(body[:limit])
            if limit < len(body):
                self.wfile.flush()
                if hang:
                    served.continued.wait(60)
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Served(f"http://127.0.0.1:{server.server_port}")
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield served
        finally:
            served.continued.set()
            server.shutdown()


def read_folder(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def web(files: Mapping[str, bytes], needed: Mapping[str, str] | None = None) -> Answers:
    """A folder at `/models/x`, for those who send the headers that are needed."""

    def answer(asked: Asked) -> Answer:
        if any(asked.headers.get(name) != value for name, value in (needed or {}).items()):
            return Answer(b"who are you", 401)
        found = files.get(asked.path.removeprefix("/models/x/"))
        return MISSING if found is None else Answer(found)

    return answer


def hub(files: Mapping[str, bytes], name: str = "me/mine", token: str = "") -> Answers:
    """A repository whose list comes in two pages, and whose large files lie elsewhere."""

    def entry(path: str) -> dict[str, Any]:
        content = files[path]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        found = {"type": "file", "path": path, "oid": blob, "size": len(content)}
        large = {"lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 134}}
        return found | (large if path.endswith(".safetensors") else {})

    def answer(asked: Asked) -> Answer:
        allowed = asked.headers.get("authorization") == f"Bearer {token}"
        if asked.path.startswith("/elsewhere/"):
            return Answer(files[asked.path.removeprefix("/elsewhere/")])
        if token and not allowed:
            return Answer(b"gated", 401)
        if asked.path == f"/api/models/{name}/tree/{COMMIT}":
            paths = sorted(files)
            half = len(paths) // 2
            if "cursor" in asked.query:
                return Answer(json.dumps([entry(path) for path in paths[half:]]).encode())
            page = [{"type": "directory", "path": "sub", "oid": "0"}, *map(entry, paths[:half])]
            more = f'<{{}}{asked.path}?recursive=true&cursor=2>; rel="next"'
            host = f"http://{asked.headers['host']}"
            return Answer(json.dumps(page).encode(), headers={"Link": more.format(host)})
        path = asked.path.removeprefix(f"/{name}/resolve/{COMMIT}/")
        if path not in files:
            return MISSING
        if path.endswith(".safetensors"):
            return Answer(status=302, headers={"Location": f"/elsewhere/{path}"})
        return Answer(files[path])

    return answer


def registry(files: Mapping[str, bytes], login: tuple[str, str] | None = None) -> Answers:
    """A registry that wants a token from `/token`, given to those who log in."""
    manifest = oci_manifest(files)
    blobs = {f"sha256:{sha256(content)}": content for content in files.values()}
    basic = "Basic " + base64.b64encode(":".join(login or ("", "")).encode()).decode()

    def answer(asked: Asked) -> Answer:
        if asked.path == "/token":
            refused = login is not None and asked.headers.get("authorization") != basic
            return Answer(b"no", 401) if refused else Answer(b'{"token": "pull"}')
        if asked.headers.get("authorization") != "Bearer pull":
            realm = f"http://{asked.headers['host']}/token"
            scope = 'service="here",scope="repository:team/qwen3:pull"'
            challenge = {"WWW-Authenticate": f'Bearer realm="{realm}",{scope}'}
            return Answer(b"who are you", 401, challenge)
        what, _, digest = asked.path.removeprefix("/v2/team/qwen3/").partition("/")
        if what == "manifests" and digest == f"sha256:{sha256(manifest)}":
            return Answer(manifest)
        return Answer(blobs[digest]) if what == "blobs" and digest in blobs else MISSING

    return answer


def oci_manifest(
    files: Mapping[str, bytes], title: str = "org.opencontainers.image.title"
) -> bytes:
    layers = [
        {
            "mediaType": "application/octet-stream",
            "digest": f"sha256:{sha256(content)}",
            "size": len(content),
            "annotations": {title: path},
        }
        for path, content in files.items()
    ]
    return json.dumps({"schemaVersion": 2, "layers": layers}).encode()


def bucket(objects: Mapping[str, bytes], name: str = "models", key: str = "") -> Answers:
    """A bucket by the XML interface that S3 and GCS share; lists in pages of four."""

    def etag(content: bytes) -> str:
        return f'"{hashlib.md5(content).hexdigest()}"'

    def answer(asked: Asked) -> Answer:
        if key and f"Credential={key}/" not in asked.headers.get("authorization", ""):
            return Answer(b"<Error><Code>AccessDenied</Code></Error>", 403)
        if asked.path.rstrip("/") == f"/{name}":
            first = int(asked.query.get("continuation-token", "0"))
            paths = [each for each in sorted(objects) if each.startswith(asked.query["prefix"])]
            found = "".join(
                f"<Contents><Key>{escape(path)}</Key><Size>{len(objects[path])}</Size>"
                "<LastModified>2026-11-23T12:00:00.000Z</LastModified>"
                f"<ETag>{escape(etag(objects[path]))}</ETag></Contents>"
                for path in paths[first : first + 4]
            )
            if paths[first + 4 :]:
                found += f"<NextContinuationToken>{first + 4}</NextContinuationToken>"
            return Answer(f"<ListBucketResult>{found}</ListBucketResult>".encode())
        content = objects.get(asked.path.removeprefix(f"/{name}/"))
        if content is None:
            return Answer(b"<Error><Code>NoSuchKey</Code></Error>", 404)
        if asked.headers.get("if-match", etag(content)) != etag(content):
            return Answer(status=412)
        dated = {"ETag": etag(content), "Last-Modified": "Mon, 23 Nov 2026 12:00:00 GMT"}
        return Answer(content, headers=dated)

    return answer


def service_account(url: str) -> str:
    """A key as emulators of GCS want it: where to go, and that nobody is to be asked."""
    return json.dumps(
        {"gcs_base_url": url, "disable_oauth": True, "client_email": "", "private_key": "",
         "private_key_id": ""}
    )  # fmt: skip
