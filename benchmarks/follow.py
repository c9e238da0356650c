"""How soon the ranking follows a label: from `session.label` to the next page, with very many images.

A session on the demo sky, images of 16 px made when they are read, embedded by the default network at 32 px
so that this takes minutes; the vectors are as long as always. Then, in turns: label a page, and
ask for what is offered next; the labels are on disk and the head is fitted anew in between.

page_s       `session.query(24)`: the best
mixed_s      `session.query(24, strategy="mixed")`: the best, uncertain, diverse, and an audit
order_s      `session.ranking("highest")`: the order of the gallery
similar_s    `session.similar(id, 24)`: more like this

    python benchmarks/follow.py --json               # 100,000 images
    python benchmarks/follow.py --images 1000000
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from report import peak_memory_mb, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

_PAGE = 24


def measure(n_images: int, pages: int) -> dict[str, Any]:
    """Return the median and the longest seconds of each."""
    import amatch_widgets as am  # noqa: PLC0415 (not for --help)

    source = am.demo.sky(n_images, seed=0, size=16)
    config = am.TrainConfig(embed_px=32, dihedral=False)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AMATCH_CACHE"] = folder
        labels = source.first_labels(5, 45)
        image = am.Preprocess(size=16)
        path = Path(folder, "run")
        with am.Session(source, labels=labels, path=path, train=config, image=image) as session:
            started = time.perf_counter()
            session.embed()
            session.wait()
            embed_s = time.perf_counter() - started
            vectors, _ = session._tiers.embeddings  # noqa: SLF001 (said beside the figures, no part of them)
            asked: dict[str, Callable[[], Any]] = {
                "page_s": lambda: session.query(_PAGE),
                "mixed_s": lambda: session.query(_PAGE, strategy="mixed"),
                "order_s": lambda: (session.query(0), session.ranking("highest")),
                "similar_s": lambda: session.similar(source.ids[0], _PAGE),
            }
            seconds: dict[str, list[float]] = {name: [] for name in asked}
            for _ in range(pages):
                for name, ask in asked.items():
                    page = [candidate.image_id for candidate in session.query(_PAGE)]
                    started = time.perf_counter()
                    session.label({image_id: source.truth[image_id] for image_id in page}, by="truth")
                    ask()
                    seconds[name].append(time.perf_counter() - started)
    figures: dict[str, Any] = {"dims": vectors.shape[1], "embed_s": round(embed_s, 1)}
    for name, values in seconds.items():
        figures[name] = round(statistics.median(values), 2)
        figures[name.replace("_s", "_longest_s")] = round(max(values), 2)
    return figures | {"peak_mb": round(peak_memory_mb())}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--pages", type=int, default=5, help="times that each is asked")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    figures = measure(arguments.images, arguments.pages)
    for name, value in figures.items():
        print(f"{name}: {value}")
    if arguments.json:
        settings = {"images": arguments.images, "pages": arguments.pages}
        print(json.dumps({"benchmark": "follow", **settings, **figures, "seeds": [0], **provenance()}))


if __name__ == "__main__":
    main()
