"""What a process uses is measured while it opens and closes files."""

import os
import subprocess
import sys

import psutil
import pytest
from e2e.usage import usage

BUSY = "while True:\n    for file in [open('/dev/null') for _ in range(200)]: file.close()"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_closes_files_meanwhile_is_not_left_out():
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            for _ in range(100):
                found = usage(os.getpid())
                assert [pid for pid, _ in found if pid == process.pid]
        finally:
            process.kill()
    assert not psutil.pid_exists(process.pid)
