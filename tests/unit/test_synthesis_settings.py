"""Settings, passages, personas and keys as files: what is read, and every refusal."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from embedfleet.catalog import DEFAULT_INSTRUCTION
from embedfleet.errors import EmbedfleetError, InvalidManifest, InvalidRequest, SecretMissing
from embedfleet.tuning.synthesis.endpoint_settings import EndpointSettings
from embedfleet.tuning.synthesis.passages import Passage, read_passages
from embedfleet.tuning.synthesis.personas import BUILT_IN, read_personas
from embedfleet.tuning.synthesis.reading import read_key, read_settings
from embedfleet.tuning.synthesis.settings import PassageSettings, PersonaSettings, Task

LEAST = """
passages: {file: passages.jsonl}
outputFolder: out
endpoint: {baseUrl: "http://localhost:8000/v1", model: Qwen/Qwen3-32B}
filter: {model: {source: embedded/embedder}}
"""


def written(folder: Path, text: str | bytes, name: str = "synthesize.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_least_that_is_needed(tmp_path: Path) -> None:
    found = read_settings(written(tmp_path, LEAST), {})
    assert found.filter.min_cosine == 0.7
    assert found.tasks == tuple(Task)
    assert found.languages == {"en": 1.0}
    assert found.instructions.of(Task.RETRIEVAL) == DEFAULT_INSTRUCTION
    # Evaluation uses the same two: qwen3.md.
    assert found.instructions.of(Task.STS) == "Retrieve semantically similar text"
    assert found.instructions.of(Task.BITEXT) == "Retrieve parallel sentences"


def test_options_alone_and_options_over_a_file(tmp_path: Path) -> None:
    options = {
        "passages.file": "other.txt",
        "outputFolder": "o",
        "endpoint.baseUrl": "http://h/v1",
        "endpoint.model": "m",
        "filter.model.source": "/models/e",
    }
    alone = read_settings(None, options)
    over = read_settings(written(tmp_path, LEAST), {"passages.file": "other.txt", "seed": 3})
    assert alone.passages.file == over.passages.file == "other.txt"
    assert (over.seed, over.output_folder) == (3, "out")


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        ("[]", {}, ["document", "must be a mapping of fields"]),
        ("", {}, ["has 0 YAML documents"]),
        (LEAST + "---\na: 1\n", {}, ["has 2 YAML documents"]),
        ("a: [", {}, ["is not YAML"]),
        (b"\xff\xfe", {}, ["is not UTF-8 at byte 0"]),
        (LEAST + "tasks: [retrieval, retreival]", {}, ["tasks[1] is retreival", "Did you mean"]),
        (LEAST + "tasks: [sts, sts]", {}, ["tasks[1] is sts: is named twice"]),
        (LEAST + "tasks: []", {}, ["tasks"]),
        (LEAST + "languages: {english: 1}", {}, ["languages", "must be a language code"]),
        (LEAST + "languages: {de: 0}", {}, ["languages.de is 0"]),
        (LEAST + "languages: {}", {}, ["languages"]),
        (LEAST + "lengths: [{minWords: 9, maxWords: 3}]", {}, ["lengths[0].maxWords is 3"]),
        (LEAST + "budget: {maxCost: 5}", {}, ["budget.maxCost is 5", "Set prices"]),
        (LEAST + "queryPerPassage: 2", {}, ["Did you mean queriesPerPassage?"]),
        (LEAST, {"filter.minCosine": 1.5}, ["filter.minCosine is 1.5: must be at most 1"]),
        (LEAST, {"endpoint.baseUrl": "localhost:8000"}, ["endpoint.baseUrl is localhost:8000"]),
        (LEAST, {"endpoint.baseUrl": "http://h/v1?a=b"}, ["endpoint.baseUrl"]),
        (LEAST, {"endpoint.keyVariable": "sk-1234"}, ["must be the name of an environment"]),
        (
            LEAST,
            {"endpoint.keyVariable": "A", "endpoint.keyFile": "k"},
            ["endpoint.keyFile is k: the key is in keyVariable already"],
        ),
        (LEAST, {"endpoint.extraBody": {"model": "n"}}, ["endpoint.extraBody.model is n"]),
        (LEAST, {"endpoint.temperature": "hot"}, ["endpoint.temperature"]),
        (LEAST, {"endpoint.retries.maxDelaySeconds": 0.5}, ["at least firstDelaySeconds"]),
        (LEAST, {"seed": -1}, ["seed is -1"]),
        (LEAST, {"passages.minCharacters": 9000}, ["passages.maxCharacters is 8000"]),
    ],
)
def test_refused_settings(
    tmp_path: Path, text: str | bytes, changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(InvalidManifest) as refused:
        read_settings(written(tmp_path, text), changes)
    for part in said:
        assert part in refused.value.message


def test_a_change_inside_a_value(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_settings(written(tmp_path, LEAST), {"endpoint.model.name": "x"})
    assert refused.value.message == (
        "endpoint.model.name cannot be set: model is 'Qwen/Qwen3-32B', not a section of fields. Set"
        " endpoint.model instead."
    )


def test_every_problem_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest) as refused:
        read_settings(written(tmp_path, "seed: x\nfilter: {}\nendpoint: {model: ''}"), {})
    paths = {problem.path for problem in refused.value.problems}
    assert {
        "seed", "filter.model", "endpoint.model", "endpoint.baseUrl", "passages", "outputFolder",
    } <= paths  # fmt: skip


def endpoint(**places: str) -> EndpointSettings:
    return EndpointSettings(base_url="http://h/v1", model="m", **places)  # type: ignore[arg-type]


def test_keys(tmp_path: Path) -> None:
    path = written(tmp_path, "sk-123\n", "key")
    assert read_key(endpoint(), {}) is None
    assert read_key(endpoint(key_variable="KEY"), {"KEY": "sk-1"}) == "sk-1"
    assert read_key(endpoint(key_file=str(path)), {}) == "sk-123"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"sk-1\nsk-2", "9 characters that are not one key"),
        ("schlüssel".encode(), "9 characters that are not one key"),
        (b"\xff", "cannot be read"),
    ],
)
def test_refused_keys(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SecretMissing) as refused:
        read_key(endpoint(key_file=str(path)), {})
    assert said in refused.value.message
    assert "endpoint.keyFile" in refused.value.message
    # What a key might be is never repeated.
    assert "sk-" not in refused.value.message.replace(str(path), "")


def test_a_variable_that_is_not_set() -> None:
    with pytest.raises(SecretMissing, match=r"keyVariable is KEY, but that variable is empty"):
        read_key(endpoint(key_variable="KEY"), {"OTHER": "a"})


def passages(path: Path, **changes: Any) -> PassageSettings:
    return PassageSettings(file=str(path), **{"min_characters": 3, "max_characters": 10} | changes)


def test_passages_of_json_lines(tmp_path: Path) -> None:
    lines = [{"text": " one "}, {"text": "two", "lang": "de"}, {"text": "one"}, {"text": "x"}]
    text = "\n".join(json.dumps(each) for each in [*lines, {"text": "y" * 11}]) + "\n\n"
    found = read_passages(passages(written(tmp_path, text, "p.jsonl")))
    names = [hashlib.sha256(each).hexdigest()[:16] for each in (b"one", b"two")]
    assert found.used == (Passage(names[0], "one", "en"), Passage(names[1], "two", "en"))
    assert found.skipped == {"repeated": 1, "too-short": 1, "too-long": 1, "empty": 1}


def test_passages_with_their_own_language(tmp_path: Path) -> None:
    path = written(tmp_path, '{"body": "eins", "lang": "de"}', "p.jsonl")
    found = read_passages(passages(path, field="body", language_field="lang"))
    assert [(each.text, each.language) for each in found.used] == [("eins", "de")]


def test_passages_of_lines(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfone\r\n\r\ntwo", "p.txt")
    assert [each.text for each in read_passages(passages(path)).used] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "text", "changes", "said"),
    [
        ("p.txt", b"one\n\xff\n", {}, "p.txt, line 2 is not UTF-8 at byte 0"),
        ("p.jsonl", "{", {}, "p.jsonl, line 1 is not JSON"),
        ("p.jsonl", "[" * 99_999, {}, "p.jsonl, line 1 is not JSON"),
        ("p.jsonl", '{"body": "one"}', {}, "has no text in field 'text'; it has: body. Name"),
        ("p.jsonl", '"one"', {}, "it has: str"),
        ("p.jsonl", '{"text": "a\\ud83db"}', {}, "half a surrogate pair at character 1"),
        ("p.jsonl", '{"text": "one"}', {"language_field": "l"}, "passages.languageField"),
        ("p.jsonl", '{"text": "one", "l": "DE!"}', {"language_field": "l"}, "is 'DE!'"),
        ("p.txt", "one", {"language_field": "l"}, "is not named .jsonl"),
        ("p.txt", "", {}, "which has no passage of 3 to 10 characters. Name"),
        ("p.txt", "a\nb\n", {}, "(2 too-short)"),
    ],
)
def test_refused_passages(
    tmp_path: Path, name: str, text: str | bytes, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read_passages(passages(written(tmp_path, text, name), **changes))
    assert said in refused.value.message


def test_personas(tmp_path: Path) -> None:
    assert read_personas(PersonaSettings()) == BUILT_IN
    assert len(set(BUILT_IN)) == len(BUILT_IN) >= 40
    lines = written(tmp_path, "A cook\n\nA  nurse\nA cook\n", "p.txt")
    records = written(tmp_path, '{"persona": "A cook"}\n{"persona": "A nurse"}\n', "p.jsonl")
    for path in (lines, records):
        found = read_personas(PersonaSettings(file=str(path), candidates=2))
        assert found == ("A cook", "A nurse")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("p.txt", "A cook\n", "personas.candidates is 5, but there are 1 personas"),
        ("p.txt", "x" * 1001, "p.txt, line 1 has a persona of 1001 characters"),
        ("p.txt", b"\xff", "is not UTF-8 at byte 0"),
        ("p.jsonl", "A cook", "p.jsonl, line 1 is not JSON"),
        ("p.jsonl", '{"name": "A cook"}', "has no text in field 'persona'"),
    ],
)
def test_refused_personas(tmp_path: Path, name: str, text: str | bytes, said: str) -> None:
    with pytest.raises(EmbedfleetError) as refused:
        read_personas(PersonaSettings(file=str(written(tmp_path, text, name))))
    assert said in refused.value.message
