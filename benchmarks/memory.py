"""How much memory the demo hunt takes: the peak of one kernel, dashboard included.

Begins a session on the demo sky with 50 known examples, shows its dashboard, trains a few steps of
FixMatch with the default network, scores every image, labels a page, and does it again. More steps
take longer and no more memory. The limit to hold is 2 GB (Binder's) for 20,000 images of 64 px.

import_mb    peak after the imports, torch and widgets included
session_mb   peak with the session and its dashboard, before any training
peak_mb      peak of the whole hunt

    python benchmarks/memory.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from report import peak_memory_mb, provenance

LIMIT_MB = 2000
_PAGE = 48


def measure(n_images: int, size: int, steps: int, seed: int) -> dict[str, Any]:
    """Run the hunt in this process and return the figures."""
    import amatch_widgets as am  # noqa: PLC0415 (what is imported when is part of the figures)
    import amatch_widgets.learn.trainer  # noqa: PLC0415
    import amatch_widgets.widgets  # noqa: PLC0415

    import_mb = peak_memory_mb()
    started = time.perf_counter()
    source = am.demo.sky(n_images, seed=seed, size=size)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AMATCH_CACHE"] = folder  # so that the embeddings are made here
        session = am.Session(
            source,
            labels=source.first_labels(min(5, max(1, n_images // 100)), 45),
            path=Path(folder, "run"),
            train=am.TrainConfig(steps=steps, seed=seed),
            image=am.Preprocess(size=size),
        )
        with session:
            dashboard = session.show()
            session_mb = peak_memory_mb()
            session.wait()  # the dashboard makes the embeddings
            for _ in range(2):
                session.train()
                session.wait()
                page = [candidate.image_id for candidate in session.query(_PAGE)]
                session.label({image_id: source.truth[image_id] for image_id in page}, by="truth")
            dashboard.close()
    return {
        "import_mb": round(import_mb),
        "session_mb": round(session_mb),
        "peak_mb": round(peak_memory_mb()),
        "wall_s": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=20_000, help="images of the demo sky")
    parser.add_argument("--size", type=int, default=64, help="side of the images, px")
    parser.add_argument("--steps", type=int, default=5, help="training steps of each of the two cycles")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.images, arguments.size, arguments.steps, arguments.seed)
    print(
        f"{arguments.images:,} images of {arguments.size} px: peak {figures['peak_mb']} MB in "
        f"{figures['wall_s']:.0f} s ({figures['import_mb']} MB after the imports, "
        f"{figures['session_mb']} MB before training); the limit is {LIMIT_MB} MB."
    )
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        print(
            json.dumps({"benchmark": "memory", **settings, **figures, "limit_mb": LIMIT_MB, **provenance()})
        )


if __name__ == "__main__":
    main()
