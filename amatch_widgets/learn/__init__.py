"""The learning core: augmentation, backbones, FixMatch, its trainer and the metrics."""

from __future__ import annotations

import os

# OpenMP threads that spin while they wait take the cores from the notebook, the browser and each
# other: beside other programs a step on 2 cores took 4.0 s with spinning and 0.9 s without
# (benchmarks/RESULTS.md). Read once, when torch is first imported; the user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
