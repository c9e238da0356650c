"""How long `Session.explain` takes: the coarse map, which comes first, and the fine one.

The highest scores of a demo sky (64 px, default network) are explained one after the other, first with
nothing else to do, then while a training runs, which lets an explanation in between two of its steps.

first_s                              the first map, coarse: the network is made for it, and kept
coarse_idle_s, fine_idle_s           median seconds of a map, and its longest as *_longest_s
coarse_training_s, fine_training_s   the same beside the training
step_s                               median seconds of its steps, which a map may have to wait for

    python benchmarks/explain.py --json   # five minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import provenance

if TYPE_CHECKING:
    import amatch_widgets as am

_MANY = 100_000  # steps: the training is stopped when all is measured


def run(n_images: int, n_explained: int, **options: Any) -> dict[str, float]:
    """Return the figures; `options` are those of the training."""
    import amatch_widgets as am  # noqa: PLC0415 (before torch)
    from amatch_widgets.events import StepDone  # noqa: PLC0415

    sky = am.demo.sky(n_images, seed=0, prevalence=0.05)
    with (
        tempfile.TemporaryDirectory() as folder,
        am.Session(
            sky, labels=sky.first_labels(5, 45), path=Path(folder, "run"), train=am.TrainConfig(**options)
        ) as session,
    ):
        session.embed()
        session.wait()
        best = [sky.ids[int(i)] for i in session.ranking()[:n_explained]]
        figures = {"first_s": round(_seconds(session, best[0], coarse=True), 3)}
        figures |= _maps(session, best, "idle")
        begun = threading.Event()
        session.hub.subscribe(lambda event: begun.set() if isinstance(event, StepDone) else None)
        session.train(_MANY)
        while not begun.wait(1):
            if not session.is_busy:
                session.wait()  # which raises what went wrong
                raise RuntimeError("The training has ended before its first step.")
        figures |= _maps(session, best, "training")
        if session.job != "train":
            raise RuntimeError("The training has ended before all was measured.")
        session.stop()
        steps = [record.seconds for record in session.history.steps]
        figures["step_s"] = round(statistics.median(steps), 3)
    return figures


def _maps(session: am.Session, image_ids: list[str], when: str) -> dict[str, float]:
    """Explain images as the dashboard does: each coarsely, then finely."""
    seconds: dict[str, list[float]] = {"coarse": [], "fine": []}
    for image_id in image_ids:
        for kind, times in seconds.items():
            times.append(_seconds(session, image_id, coarse=kind == "coarse"))
    figures = {}
    for kind, times in seconds.items():
        figures[f"{kind}_{when}_s"] = round(statistics.median(times), 3)
        figures[f"{kind}_{when}_longest_s"] = round(max(times), 3)
    return figures


def _seconds(session: am.Session, image_id: str, *, coarse: bool) -> float:
    start = time.perf_counter()
    session.explain(image_id, coarse=coarse)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, help="images of the demo sky")
    parser.add_argument("--explained", type=int, default=12, help="images that are explained")
    parser.add_argument("--backbone", help="another network, e.g. a smaller one to try this program out")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    if arguments.explained < 1 or arguments.images < arguments.explained:
        parser.error("--explained must be 1 or more, and no more than --images")
    network = {} if arguments.backbone is None else {"backbone": arguments.backbone, "weights": "random"}
    figures = run(arguments.images, arguments.explained, **network)
    print("| map | idle, s | longest | beside training, s | longest |\n|---|---|---|---|---|")
    for kind in ("coarse", "fine"):
        of = [figures[f"{kind}_{when}{what}_s"] for when in ("idle", "training") for what in ("", "_longest")]
        print(f"| {kind} | " + " | ".join(f"{value:.2f}" for value in of) + " |")
    print(f"\nThe first map took {figures['first_s']:.2f} s, a training step {figures['step_s']:.2f} s.")
    if arguments.json:
        what = {"images": arguments.images, "explained": arguments.explained, "seeds": [0]}
        print(json.dumps({"benchmark": "explain", **what, **network, **figures, **provenance()}))


if __name__ == "__main__":
    main()
