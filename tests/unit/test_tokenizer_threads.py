"""A replica's tokenizer uses the threads that it was given, not one for every core."""

import subprocess
import sys

import pytest

COUNTS = """
import os, sys
from embedfleet.checkpoint import resolve
from embedfleet.config import limit_tokenizers
from embedfleet.tokenization.tokenizer import Tokenizer
tokenizer = Tokenizer.load(resolve("embedded/embedder"))
limit_tokenizers(int(sys.argv[1]))
before = len(os.listdir("/proc/self/task"))
tokenizer.encode_batch(["a text of some words"] * 500)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("allowed", "started"), [(1, 0), (2, 2), (3, 3)])
def test_threads_are_those_of_the_replica(allowed, started):
    command = [sys.executable, "-c", COUNTS, str(allowed)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == started
