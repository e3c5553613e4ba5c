"""Freed memory stays with the process: no page is asked for twice."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from xsite.learning.memory import keep_freed_memory

def faults(n_rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_rounds):
        torch.ones(12_000_000)  # 48 MB, more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

torch.set_num_threads(1)
faults(1)
given_back = faults(5)
if not keep_freed_memory():
    print("refused")
    sys.exit()
faults(20)  # small blocks cut a few kilobytes off the large ones, so it takes some rounds until there are enough
print(given_back, faults(5))
"""


def test_a_block_that_was_freed_is_used_again_without_a_page_fault() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.split()
    if out == ["refused"]:
        pytest.skip("this C library has no mallopt")
    given_back, kept = map(int, out)
    pages = 5 * 48_000_000 // resource.getpagesize()
    assert given_back > pages / 600  # huge pages are 512 small ones
    assert kept < given_back / 4
