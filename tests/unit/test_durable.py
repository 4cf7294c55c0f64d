"""A file is whole or not there."""

from pathlib import Path

import pytest

from embedfleet.durable import partial_name, replacing


def test_a_file_takes_its_place_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("before")
    with replacing(file) as target:
        target.write("after")
        assert file.read_text() == "before"
    assert file.read_text() == "after"
    assert list(tmp_path.iterdir()) == [file]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text("before")
    with pytest.raises(UnicodeEncodeError), replacing(file) as target:
        target.write("half" * 10_000 + "\udc80")
    assert file.read_text() == "before"
    assert not partial_name(file).exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "report.json"):
        pass
