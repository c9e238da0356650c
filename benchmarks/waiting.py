"""What OpenMP threads cost that spin while they wait, alone and beside other programs.

Measures the median time of a FixMatch step (64 px, 16 + 80 images, default network, demo sky) with
OMP_WAIT_POLICY=ACTIVE and PASSIVE, the default of this package, in fresh processes that alternate:
first with the machine to themselves, then beside as many busy programs as there are cores.

    python benchmarks/waiting.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from report import provenance

POLICIES = ("ACTIVE", "PASSIVE")


def steps(n: int) -> list[float]:
    """Train `n` steps in this process and return the seconds of each but the first two."""
    import amatch_widgets as am  # noqa: PLC0415 (torch reads the policy when it is imported)

    sky = am.demo.sky(500, seed=0)
    with (
        tempfile.TemporaryDirectory() as folder,
        am.Session(sky, labels=sky.first_labels(5, 45), path=Path(folder, "run")) as session,
    ):
        session.train(n)
        session.wait()
        return [record.seconds for record in session.history.steps[2:]]


def compare(n: int, rounds: int, beside: int) -> dict[str, float]:
    """Return the median seconds of a step for each policy, beside `beside` busy programs."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(beside)]
    seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    try:
        for _ in range(rounds):
            for policy in POLICIES:
                run = subprocess.run(
                    [sys.executable, __file__, "--steps", str(n), "--child"],
                    env={**os.environ, "OMP_WAIT_POLICY": policy},
                    capture_output=True,
                    text=True,
                    check=True,
                )
                seconds[policy] += json.loads(run.stdout.splitlines()[-1])
    finally:
        for program in busy:
            program.kill()
            program.wait()
    return {policy: round(statistics.median(values), 3) for policy, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12, help="steps a process")
    parser.add_argument("--rounds", type=int, default=2, help="processes for each policy")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(steps(arguments.steps)))
        return
    figures = {
        "alone_step_s": compare(arguments.steps, arguments.rounds, 0),
        "beside_busy_step_s": compare(arguments.steps, arguments.rounds, os.cpu_count() or 1),
    }
    for name, values in figures.items():
        ratio = values["ACTIVE"] / values["PASSIVE"]
        print(f"{name}: {values['ACTIVE']:.2f} spinning, {values['PASSIVE']:.2f} sleeping, ratio {ratio:.1f}")
    if arguments.json:
        print(json.dumps({"benchmark": "waiting", "seeds": [0], **figures, **provenance()}))


if __name__ == "__main__":
    main()
