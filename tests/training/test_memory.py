import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from poddistill.training.memory import keep_freed_memory
keep_freed_memory()
def steps(n):
    for _ in range(n):
        torch.ones(2**24)  # 64 MiB, freed at once
steps(40)  # aligned blocks leave gaps, which the first ones fill
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
steps(10)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries stay as they are")
def test_a_later_step_finds_the_memory_of_earlier_ones() -> None:
    command = [sys.executable, "-c", PAGES]
    assert int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) < 1000  # of 163840 pages
