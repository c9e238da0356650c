"""Linear algebra on one thread."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["one_thread"]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let NumPy's and SciPy's linear algebra use one thread while within.

    The threads of OpenBLAS spin while they wait for each other: beside a training that keeps both
    cores busy, a fit of the instant head took 8 s on two threads and 0.4 s on one. The limit holds
    for the whole process; PyTorch has threads of its own, which it leaves alone.

    Thread safety: any thread may be within. Where several are, the limit is the first one's and is
    lifted when that one leaves: the others may become slower, not wrong.
    """
    with threadpool_limits(limits=1, user_api="blas"):
        yield
