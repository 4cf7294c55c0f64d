"""A model's files from every kind of source: whole, right, resumed, or refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from model_servers import (
    COMMIT,
    NO_LIMIT,
    Answer,
    Asked,
    bucket,
    hub,
    oci_manifest,
    read_folder,
    registry,
    service_account,
    serving,
    sha256,
    web,
)

from embedfleet.checkpoint import open_checkpoint, resolve
from embedfleet.errors import (
    CheckpointError,
    DigestMismatch,
    EmbedfleetError,
    FetchFailed,
    FetchInterrupted,
    SecretMissing,
)
from embedfleet.fetching.fetch import fetch
from embedfleet.fetching.marker import STAGING, Fetched, cached
from embedfleet.fetching.oci import Registry
from embedfleet.fetching.parts import Progress, complete
from embedfleet.fetching.source import RemoteFile, Stream
from embedfleet.fetching.staging import staging_in
from embedfleet.messages import Role
from embedfleet.rendering.cache import (
    GCS_KEY,
    HEADER_PREFIX,
    HUB_TOKEN,
    REGISTRY_CREDENTIALS,
    S3_KEY_ID,
    S3_SECRET_KEY,
)
from embedfleet.resources.model_cache import ModelCacheSpec

FOLDER = resolve("embedded/embedder")
MODEL = read_folder(FOLDER)
WEIGHTS = "model.safetensors"
DIGESTS = {name: sha256(content) for name, content in MODEL.items()}
CLUTTER = {
    "README.md": b"# not needed",
    "pytorch_model.bin": b"a pickle",
    "onnx/model.safetensors": b"another format",
    ".cache/state.json": b"{}",
}
KEY = {S3_KEY_ID: "AKIA", S3_SECRET_KEY: "secret"}
LOGIN = ("robot", "pass:word")


def spec_of(source: Mapping[str, Any], **more: Any) -> ModelCacheSpec:
    return ModelCacheSpec.model_validate_json(json.dumps({"source": source, **more}))


def web_spec(url: str, digests: Mapping[str, str] = DIGESTS, **more: Any) -> ModelCacheSpec:
    source = {"http": {"address": f"{url}/models/x", **more}}
    return spec_of(source, digests={"files": digests})


def fetched(spec: ModelCacheSpec, folder: Path, **environment: str) -> Fetched:
    return fetch(spec, folder, environment, Progress(lambda line: None, 0.01))


def model_in(folder: Path) -> dict[str, bytes]:
    """Give the files that whoever loads the folder finds."""
    cached(folder)
    return {
        name: content
        for name, content in read_folder(folder).items()
        if not name.startswith((STAGING, ".embedfleet"))
    }


def untouched(folder: Path) -> bool:
    """Tell that nothing lies under a final name."""
    return [path for path in folder.iterdir() if path.name != STAGING] == []


def cut_once(path: str, after: int) -> Callable[[Asked, int], int]:
    """Break the first answer for a file off."""
    return lambda asked, earlier: after if asked.path.endswith(path) and earlier == 0 else NO_LIMIT


@contextmanager
def a_hub(files: Mapping[str, bytes], **how: Any) -> Iterator[tuple[Any, ...]]:
    with serving(hub(files, token="t"), **how) as served:
        source = {"hub": {"name": "me/mine", "tokenSecretName": "hub"}}
        environment = {HUB_TOKEN: "t", "HF_ENDPOINT": served.url}
        yield served, spec_of(source, revision=COMMIT), environment


@contextmanager
def an_s3(files: Mapping[str, bytes], **how: Any) -> Iterator[tuple[Any, ...]]:
    objects = {f"team/qwen3/{name}": content for name, content in files.items()}
    with serving(bucket(objects, key="AKIA"), **how) as served:
        s3 = {"bucket": "models", "prefix": "team/qwen3", "endpoint": served.url}
        yield served, spec_of({"s3": {**s3, "credentialsSecretName": "s3"}}), KEY


@contextmanager
def a_gcs(files: Mapping[str, bytes], **how: Any) -> Iterator[tuple[Any, ...]]:
    objects = {f"qwen3/{name}": content for name, content in files.items()}
    with serving(bucket(objects), **how) as served:
        gcs = {"bucket": "models", "prefix": "qwen3", "credentialsSecretName": "gcs"}
        spec = spec_of({"gcs": gcs}, digests={"files": DIGESTS})
        yield served, spec, {GCS_KEY: service_account(served.url)}


@contextmanager
def an_oci(files: Mapping[str, bytes], **how: Any) -> Iterator[tuple[Any, ...]]:
    with serving(registry(files, LOGIN), **how) as served:
        host = served.url.removeprefix("http://")
        reference = f"{host}/team/qwen3:v1@sha256:{sha256(oci_manifest(files))}"
        source = {"oci": {"reference": reference, "pullSecretName": "pull"}}
        auths = {host: {"username": LOGIN[0], "password": LOGIN[1]}}
        yield served, spec_of(source), {REGISTRY_CREDENTIALS: json.dumps({"auths": auths})}


@contextmanager
def a_web(files: Mapping[str, bytes], **how: Any) -> Iterator[tuple[Any, ...]]:
    with serving(web(files, {"x-api-key": "k"}), **how) as served:
        environment = {f"{HEADER_PREFIX}X-Api-Key": "k"}
        yield served, web_spec(served.url, headersSecretName="web"), environment


SOURCES = pytest.mark.parametrize("source", [a_hub, an_s3, a_gcs, an_oci, a_web])


@SOURCES
def test_a_model_comes_whole_and_is_known_by_its_digests(source: Any, tmp_path: Path) -> None:
    with source({**MODEL, **CLUTTER}) as (served, spec, environment):
        found = fetched(spec, tmp_path, **environment)
        assert model_in(tmp_path) == MODEL
        assert found.files == DIGESTS
        assert found.num_bytes == sum(map(len, MODEL.values()))
        assert found.weights_digest == open_checkpoint(FOLDER, Role.EMBEDDER).weights_digest
        assert found.tokenizer_digest == DIGESTS["tokenizer.json"]
        assert found.revision == (COMMIT if source is a_hub else "")
        calls = len(served.asked)
        assert fetched(spec, tmp_path, **environment) == found
        assert len(served.asked) == calls, "what is there is not asked for"


@SOURCES
def test_what_breaks_off_goes_on_where_it_did(source: Any, tmp_path: Path) -> None:
    after = len(MODEL[WEIGHTS]) // 3
    with source(MODEL, cut=lambda asked, earlier: _cut_weights(asked, earlier, after)) as (
        served, spec, environment,
    ):  # fmt: skip
        fetched(spec, tmp_path, **environment)
        assert model_in(tmp_path) == MODEL
        whole = [each for each in served.asked if each.start]
        assert whole, "the rest alone is asked for"
        assert all(each.start <= after for each in whole)


def _cut_weights(asked: Asked, earlier: int, after: int) -> int:
    digest = sha256(MODEL[WEIGHTS])
    return after if earlier == 0 and asked.path.endswith((WEIGHTS, digest)) else NO_LIMIT


def test_a_server_without_ranges_is_read_from_the_beginning(tmp_path: Path) -> None:
    with serving(web(MODEL), ranges=False, cut=cut_once(WEIGHTS, 1000)) as served:
        fetched(web_spec(served.url), tmp_path)
        assert served.starts(WEIGHTS) == [0, 1000]
    assert model_in(tmp_path) == MODEL


@SOURCES
@pytest.mark.parametrize("sent", [1000, len(MODEL[WEIGHTS]) // 2])
def test_what_came_before_a_source_fell_silent_is_kept(
    source: Any, sent: int, tmp_path: Path
) -> None:
    mended = Event()

    def silent(asked: Asked, earlier: int) -> int:
        weights = asked.path.endswith((WEIGHTS, DIGESTS[WEIGHTS])) and not mended.is_set()
        return max(sent - asked.start, 0) if weights else NO_LIMIT

    with source(MODEL, cut=silent) as (served, spec, environment):
        with pytest.raises(FetchInterrupted) as caught:
            fetched(spec, tmp_path, **environment)
        assert caught.value.retryable
        assert untouched(tmp_path)
        with pytest.raises(CheckpointError, match="not fetched to the end"):
            cached(tmp_path)
        calls = len(served.asked)
        mended.set()
        fetched(spec, tmp_path, **environment)
        assert model_in(tmp_path) == MODEL
        starts = {each.start for each in served.asked[calls:]}
        # Without a digest only what is surely on the disk is trusted: blocks of 64 MiB.
        assert starts - {0} == (set() if source is an_s3 else {sent})


@pytest.mark.parametrize("kept", ["too-much", "damaged"])
def test_what_is_kept_is_not_trusted(kept: str, tmp_path: Path) -> None:
    """A machine that lost power may keep a part that is not what was sent."""
    after = 5000

    def stop(asked: Asked, earlier: int) -> int:
        return max(after - asked.start, 0) if asked.path.endswith(WEIGHTS) else NO_LIMIT

    with serving(web(MODEL), cut=stop) as served:
        url = served.url
        with pytest.raises(FetchInterrupted):
            fetched(web_spec(url), tmp_path)
    (part,) = (tmp_path / STAGING).glob("*.part")
    content = MODEL[WEIGHTS] + b"more" if kept == "too-much" else bytes(after)
    part.write_bytes(content)
    with serving(web(MODEL)) as served:
        state = tmp_path / STAGING / "state.json"
        state.write_text(state.read_text().replace(url, served.url))
        fetched(web_spec(served.url), tmp_path)
    assert model_in(tmp_path) == MODEL


OTHER = "ab" * 32


@SOURCES
@pytest.mark.parametrize(
    "digests",
    [{"weights": OTHER}, {"tokenizer": OTHER}, {"files": {"config.json": OTHER}}],
    ids=["weights", "tokenizer", "file"],
)
def test_other_files_than_were_asked_for_are_refused(
    source: Any, digests: dict[str, Any], tmp_path: Path
) -> None:
    with source(MODEL) as (_, spec, environment):
        files = {**spec.digests.files, **digests.get("files", {})}
        wrong = spec.digests.model_copy(update={**digests, "files": files})
        with pytest.raises(DigestMismatch, match=f"expected {OTHER}") as caught:
            fetched(spec.model_copy(update={"digests": wrong}), tmp_path, **environment)
        assert not caught.value.retryable
        assert untouched(tmp_path)
        # Corrected, it goes on.
        fetched(spec, tmp_path, **environment)
        assert model_in(tmp_path) == MODEL


def test_digests_may_be_given_later_and_are_checked_without_asking(tmp_path: Path) -> None:
    with serving(web(MODEL)) as served:
        spec = web_spec(served.url)
        found = fetched(spec, tmp_path)
    right = spec.digests.model_copy(update={"weights": found.weights_digest})
    assert fetched(spec.model_copy(update={"digests": right}), tmp_path) == found
    wrong = spec.digests.model_copy(update={"weights": OTHER})
    with pytest.raises(DigestMismatch, match="the weights"):
        fetched(spec.model_copy(update={"digests": wrong}), tmp_path)
    assert model_in(tmp_path) == MODEL, "replicas may be reading it"


def test_a_folder_with_another_model_is_left_alone(tmp_path: Path) -> None:
    with serving(web(MODEL)) as served:
        fetched(web_spec(served.url), tmp_path)
        other = spec_of({"http": {"address": f"{served.url}/y"}}, digests={"files": DIGESTS})
        with pytest.raises(FetchFailed, match="files that replicas may be reading"):
            fetched(other, tmp_path)
    assert model_in(tmp_path) == MODEL


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with (
        serving(web(MODEL)) as served,
        pytest.raises(FetchFailed, match=r"holds model\.safetensors\.index\.json"),
    ):
        fetched(web_spec(served.url), tmp_path)


def test_two_never_fetch_into_one_folder_at_once(tmp_path: Path) -> None:
    with serving(web(MODEL)) as served:
        with staging_in(tmp_path), pytest.raises(FetchInterrupted, match="Another process"):
            fetched(web_spec(served.url), tmp_path)
        fetched(web_spec(served.url), tmp_path)
    assert model_in(tmp_path) == MODEL


def test_a_change_of_source_before_the_end_starts_anew(tmp_path: Path) -> None:
    broken = {**MODEL, WEIGHTS: MODEL[WEIGHTS][:-1]}
    lies = {**DIGESTS, WEIGHTS: sha256(broken[WEIGHTS])}
    with serving(web(broken)) as served, pytest.raises(CheckpointError, match="is damaged"):
        fetched(web_spec(served.url, lies), tmp_path)
    assert untouched(tmp_path)
    with serving(web(MODEL)) as served:
        fetched(web_spec(served.url), tmp_path)
        assert sorted({each.path.removeprefix("/models/x/") for each in served.asked}) == sorted(
            MODEL
        )
    assert model_in(tmp_path) == MODEL


def test_objects_of_two_versions_are_never_joined(tmp_path: Path) -> None:
    newer = {**MODEL, "config.json": MODEL["config.json"] + b"\n"}
    objects = {f"q/{name}": content for name, content in MODEL.items()}
    listed = bucket(objects)
    current = bucket({f"q/{name}": content for name, content in newer.items()})

    def overwritten(asked: Asked) -> Any:
        return listed(asked) if "prefix" in asked.query else current(asked)

    with serving(overwritten) as served:
        gcs = {"bucket": "models", "prefix": "q", "credentialsSecretName": "gcs"}
        with pytest.raises(FetchInterrupted):
            fetched(spec_of({"gcs": gcs}), tmp_path, **{GCS_KEY: service_account(served.url)})
    assert untouched(tmp_path)


@pytest.mark.parametrize(
    ("source", "environment", "error", "field"),
    [
        (
            {"hub": {"name": "a/b", "tokenSecretName": "s"}},
            {}, SecretMissing, "hub.tokenSecretName",
        ),
        (
            {"s3": {"bucket": "models", "prefix": "q", "credentialsSecretName": "s"}},
            {S3_KEY_ID: "AKIA"}, SecretMissing, "s3.credentialsSecretName",
        ),
        (
            {"gcs": {"bucket": "models", "prefix": "q", "credentialsSecretName": "s"}},
            {}, SecretMissing, "gcs.credentialsSecretName",
        ),
        (
            {"oci": {"reference": f"r.example/q@sha256:{OTHER}", "pullSecretName": "s"}},
            {REGISTRY_CREDENTIALS: '{"auths": {"other.example": {}}}'}, SecretMissing,
            "oci.pullSecretName",
        ),
        (
            {"gcs": {"bucket": "models", "prefix": "q", "credentialsSecretName": "s"}},
            {GCS_KEY: "{}"}, FetchFailed, "gcs.credentialsSecretName",
        ),
        ({"oci": {"reference": f"qwen3@sha256:{OTHER}"}}, {}, FetchFailed, "oci.reference"),
        (
            {"http": {"address": "https://w.example/x", "headersSecretName": "s"}},
            {}, SecretMissing, "http.headersSecretName",
        ),
    ],
    ids=["hub", "s3-half", "gcs", "oci-other-host", "gcs-no-key", "oci-no-host", "http"],
)  # fmt: skip
def test_credentials_that_are_named_must_be_there(
    source: dict[str, Any],
    environment: dict[str, str],
    error: type[EmbedfleetError],
    field: str,
    tmp_path: Path,
) -> None:
    more = (
        {"revision": COMMIT} if "hub" in source else {"digests": {"files": {"config.json": OTHER}}}
    )
    with pytest.raises(error) as caught:
        fetched(spec_of(source, **more), tmp_path, **environment)
    assert caught.value.field == f"spec.source.{field}"


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        (a_hub, {HUB_TOKEN: "old"}),
        (an_s3, {S3_KEY_ID: "OTHER"}),
        (a_web, {f"{HEADER_PREFIX}X-Api-Key": "old"}),
    ],
)
def test_wrong_credentials_are_not_tried_again(
    source: Any, wrong: dict[str, str], tmp_path: Path
) -> None:
    with source(MODEL) as (served, spec, environment):
        with pytest.raises(FetchFailed, match="whether its credentials may read it") as caught:
            fetched(spec, tmp_path, **{**environment, **wrong})
        assert not caught.value.retryable
        assert len(served.asked) <= 1


def test_a_wrong_login_says_which_secret(tmp_path: Path) -> None:
    with an_oci(MODEL) as (served, spec, _):
        auths = {served.url.removeprefix("http://"): {"auth": "cm9ib3Q6b2xk"}}  # robot:old
        with pytest.raises(FetchFailed, match=r"pullSecretName"):
            fetched(spec, tmp_path, **{REGISTRY_CREDENTIALS: json.dumps({"auths": auths})})


def test_a_password_is_for_the_registry_and_not_for_where_it_leads(tmp_path: Path) -> None:
    def elsewhere(asked: Asked) -> Answer:
        realm = f"http://{asked.headers['host']}/token"
        return Answer(b"who are you", 401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})

    def sends_on(asked: Asked) -> Answer:
        answer = inside(asked)
        is_blob = answer.status == 200 and "/blobs/" in asked.path
        return Answer(status=307, headers={"Location": f"{other.url}/blob"}) if is_blob else answer

    inside = registry(MODEL, LOGIN)
    with serving(elsewhere) as other, serving(sends_on) as served:
        host = served.url.removeprefix("http://")
        reference = f"{host}/team/qwen3@sha256:{sha256(oci_manifest(MODEL))}"
        spec = spec_of({"oci": {"reference": reference, "pullSecretName": "pull"}})
        auths = {host: {"username": LOGIN[0], "password": LOGIN[1]}}
        with pytest.raises(FetchFailed, match=f"leads to {other.url}, which gets no secret") as no:
            fetched(spec, tmp_path, **{REGISTRY_CREDENTIALS: json.dumps({"auths": auths})})
        assert "401" in no.value.message
        assert {each.path for each in other.asked} == {"/blob"}
        assert all("authorization" not in each.headers for each in other.asked)


@pytest.mark.parametrize(
    ("registry_scheme", "realm_scheme", "refused"),
    [
        ("https", "http", True),
        ("https", "HTTP", True),
        ("https", "", True),
        ("http", "http", False),
    ],
)
def test_a_login_never_goes_in_the_clear_unless_all_of_it_is_local(
    registry_scheme: str, realm_scheme: str, refused: bool
) -> None:
    with serving(lambda asked: Answer(b'{"token": "pull"}')) as served:
        realm = served.url.removeprefix("http:" if realm_scheme else "http://")
        realm = f"{realm_scheme}:{realm}" if realm_scheme else realm
        refusal = httpx.Response(
            401,
            headers={"WWW-Authenticate": f'Bearer realm="{realm}/token"'},
            request=httpx.Request("GET", f"{registry_scheme}://registry.example/v2/q/blobs/x"),
        )
        if refused:
            with pytest.raises(FetchFailed, match=r"not https.*name an https realm"):
                Registry(LOGIN).authorize(refusal)
        else:
            assert Registry(LOGIN).authorize(refusal) == {"Authorization": "Bearer pull"}
        assert bool(served.asked) is not refused


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (oci_manifest({}), "lists no files"),
        (b'{"manifests": [{"digest": "sha256:0"}]}', "an index of several"),
        (
            oci_manifest({"model": b"x"}).replace(b"octet-stream", b"x.tar+gzip"),
            "holds archives only",
        ),
    ],
    ids=["empty", "index", "archives"],
)
def test_artifacts_that_are_no_model(answers: bytes, reason: str, tmp_path: Path) -> None:
    with serving(lambda asked: Answer(answers)) as served:
        host = served.url.removeprefix("http://")
        reference = f"{host}/q@sha256:{sha256(answers)}"
        with pytest.raises(FetchFailed, match=reason):
            fetched(spec_of({"oci": {"reference": reference}}), tmp_path)
        other = f"{host}/q@sha256:{OTHER}"
        with pytest.raises(DigestMismatch, match="the manifest"):
            fetched(spec_of({"oci": {"reference": other}}), tmp_path)


def test_what_is_told_one_host_is_not_told_another(tmp_path: Path) -> None:
    with serving(web(MODEL)) as storage, a_web({}) as (_, _, environment):

        def onward(asked: Asked) -> Any:
            return Answer(status=307, headers={"Location": f"{storage.url}{asked.path}"})

        with serving(onward) as front:
            fetched(web_spec(front.url, headersSecretName="web"), tmp_path, **environment)
            assert all(each.headers["x-api-key"] == "k" for each in front.asked)
            assert not any("x-api-key" in each.headers for each in storage.asked)


@pytest.mark.parametrize(
    ("digests", "reason"),
    [
        ({**DIGESTS, "pytorch_model.bin": OTHER}, "a pickle can run any code"),
        ({**DIGESTS, "chat.jinja": OTHER}, "404"),
    ],
)
def test_lists_that_cannot_be_fetched(digests: dict[str, str], reason: str, tmp_path: Path) -> None:
    with serving(web(MODEL)) as served, pytest.raises(FetchFailed, match=reason):
        fetched(web_spec(served.url, digests), tmp_path)


def test_a_listed_file_that_the_source_lacks(tmp_path: Path) -> None:
    with an_s3(MODEL) as (_, spec, environment):
        more = spec.digests.model_copy(update={"files": {"gone.txt": OTHER}})
        with pytest.raises(FetchFailed, match=r"lists gone\.txt, which the source does not have"):
            fetched(spec.model_copy(update={"digests": more}), tmp_path, **environment)


@dataclass
class Zeros:
    """A source that sends zeros from wherever it is asked to."""

    num_bytes: int
    starts: list[int]

    def files(self) -> list[RemoteFile]:
        return []

    @contextmanager
    def open(self, file: RemoteFile, start: int) -> Iterator[Stream]:
        self.starts.append(start)
        yield Stream(start, iter([bytes(self.num_bytes - start)]))


@pytest.mark.parametrize("known", [True, False], ids=["with-digest", "without"])
def test_without_a_digest_only_what_was_synced_is_built_upon(known: bool, tmp_path: Path) -> None:
    block, size = 64 << 20, (64 << 20) + 9
    digest = sha256(bytes(size)) if known else ""
    file, part = RemoteFile("a.json", "1", size, digest), tmp_path / "part"
    part.touch()
    os.truncate(part, block + 5)
    source = Zeros(size, [])
    assert complete(source, file, part, Progress(lambda line: None)) == sha256(bytes(size))
    assert source.starts == [block + 5 if known else block]


class TestInPlace:
    """Sources that are read where they lie are checked and never written to."""

    spec = spec_of({"path": {"folder": "/models/x"}})

    def test_right(self) -> None:
        before = {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()}
        found = fetched(self.spec, FOLDER)
        assert found.weights_digest == open_checkpoint(FOLDER, Role.EMBEDDER).weights_digest
        assert {path: path.stat().st_mtime_ns for path in FOLDER.iterdir()} == before

    def test_wrong(self, tmp_path: Path) -> None:
        for digests in (
            {"weights": OTHER},
            {"tokenizer": OTHER},
            {"files": {"config.json": OTHER}},
        ):
            spec = spec_of({"pvc": {"claimName": "models"}}, digests=digests)
            with pytest.raises(DigestMismatch):
                fetched(spec, FOLDER)
        with pytest.raises(FetchFailed, match="is not a folder here"):
            fetched(self.spec, tmp_path / "gone")
        with pytest.raises(CheckpointError):
            fetched(self.spec, tmp_path)
        with pytest.raises(FetchFailed, match=r"gone\.txt is not there"):
            fetched(
                spec_of({"path": {"folder": "/x"}}, digests={"files": {"gone.txt": OTHER}}), FOLDER
            )


def test_moving_into_place_goes_on_after_a_kill(tmp_path: Path) -> None:
    """Every state that a kill can leave between two moves is brought to the same end."""
    with serving(web(MODEL)) as served:
        whole = tmp_path / "whole"
        spec = web_spec(served.url)
        fetched(spec, whole)
        names = sorted(MODEL)
        for count in range(len(names) + 1):
            folder = tmp_path / str(count)
            staged = folder / STAGING / "files"
            staged.mkdir(parents=True)
            for index, name in enumerate(names):
                (folder if index < count else staged).joinpath(name).write_bytes(MODEL[name])
            marker = (whole / ".embedfleet-cache.json").read_text()
            (folder / STAGING / ".embedfleet-cache.json").write_text(marker)
            identity = json.loads(marker)["identity"]
            (folder / STAGING / "state.json").write_text(json.dumps({"identity": identity}))
            calls = len(served.asked)
            fetched(spec, folder)
            assert model_in(folder) == MODEL
            assert len(served.asked) == calls
