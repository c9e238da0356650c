"""The learning core: augmentation, backbones, FixMatch, its trainer and the metrics."""

from __future__ import annotations

import os

# OpenMP threads that spin while they wait take the cores from the notebook, the browser and each
# other. A step on 2 cores took 1.15 s with spinning and 0.65 s with sleeping threads beside two busy
# programs, 0.36 and 0.43 s alone (benchmarks/waiting.py): a Datalab is rarely alone. Read once, when
# torch is first imported; the user's own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
