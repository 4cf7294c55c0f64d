"""What a newcomer types first: it works, shows what was found, and leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import psutil

from embedfleet.config import Settings


def test_the_demo_searches_and_leaves_nothing(tmp_path):
    environment = {**Settings.load().environment, "EMBEDFLEET_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [Path(sys.executable).with_name("embedfleet"), "demo"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("docs", "relevance"):
        assert said in done.stdout + done.stderr
    assert list((tmp_path / "home").glob("*/state.json")) == []
    started_here = [
        process
        for process in psutil.process_iter()
        if str(tmp_path) in _environment(process).get("EMBEDFLEET_HOME", "")
    ]
    assert started_here == []


def _environment(process):
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}
