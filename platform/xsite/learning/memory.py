"""Memory that a training step frees is kept by the process for the next step.

glibc gives large blocks back to the kernel as soon as they are free, and asks for them again a moment later: every page
is then cleared and mapped anew. A step of the full model on 4 windows was seen to cost 166,000 page faults that way
and about a tenth of its time (docs/performance.md).
"""

from __future__ import annotations

import ctypes

MMAP_MAX, TRIM_THRESHOLD, TOP_PAD = -4, -1, -2  # <malloc.h>: names of mallopt's parameters
KEPT_BYTES = 2**31 - 1  # the largest that mallopt takes
GROWTH_BYTES = 64 * 2**20


def keep_freed_memory() -> bool:
    """Serve all blocks of this process from its heap, and never shrink the heap by less than 2 GiB.

    The process stays as large as it ever was. Nothing that is computed changes.

    Returns
    -------
    bool
        False where the C library has no ``mallopt`` (macOS, musl) or refuses: everything works as before.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all([mallopt(MMAP_MAX, 0), mallopt(TRIM_THRESHOLD, KEPT_BYTES), mallopt(TOP_PAD, GROWTH_BYTES)])
