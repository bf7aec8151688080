import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from poddistill.training.memory import keep_freed_memory
keep_freed_memory()
def step():
    torch.ones(2**24)  # 64 MiB, freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries stay as they are")
def test_a_second_step_finds_the_memory_of_the_first() -> None:
    command = [sys.executable, "-c", PAGES]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 100  # of 16384 pages
