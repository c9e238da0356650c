"""Which copies of an image `Session.twins` finds, and how often it takes two images for one.

1,200 images of a case of ../shared/bench, and four altered copies of each of 100 of them:

quality    saved as JPEG of quality 60
shift      moved by a 64th of the width
half       half the resolution
zoom       the inner seven eighths

found      share of the 100 copies that are twins of their image, for each least cosine
mistaken   share of the 1,200 images that have a twin which is no copy of them; two of them may be
           copies of each other, as the data come

    python benchmarks/twins.py   # three minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hunt import Case
from PIL import Image
from report import ROOT, provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    import amatch_widgets as am

CASES = ("galaxyzoo1-edge-on", "miniimagenet-crate")
LEAST = (0.8, 0.85, 0.9, 0.95)
_MARK = "__copy-"


def _shift(image: Image.Image) -> Image.Image:
    width, height = image.size
    by = max(1, width // 64)
    return image.crop((by, by, width, height)).resize(image.size)


def _half(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.resize((width // 2, height // 2)).resize(image.size)


def _zoom(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 16, height // 16, width - width // 16, height - height // 16)).resize(
        image.size
    )


COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], int]] = {
    "quality": (lambda image: image, 60),
    "shift": (_shift, 95),
    "half": (_half, 95),
    "zoom": (_zoom, 95),
}


def run(name: str, shared: Path, n_images: int, n_copied: int) -> list[dict[str, Any]]:
    """Return a row for each least cosine."""
    import amatch_widgets as am  # noqa: PLC0415 (before torch)

    case = Case.read(name, shared)
    originals = case.ids[:n_images]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        folder.mkdir()
        for image_id in originals:
            (folder / image_id).symlink_to(case.folder / image_id)
        for image_id in originals[:n_copied]:
            image = Image.open(case.folder / image_id).convert("RGB")
            for kind, (alter, quality) in COPIES.items():
                alter(image).save(folder / f"{Path(image_id).stem}{_MARK}{kind}.jpg", quality=quality)
        with am.Session(folder, path=Path(scratch, "run")) as session:
            session.embed()
            session.wait()
            return [
                {"case": name, "least": least, **rates(session, originals, n_copied, least)}
                for least in LEAST
            ]


def rates(session: am.Session, originals: list[str], n_copied: int, least: float) -> dict[str, float]:
    """Return the share of the copies that are found, of each kind, and of the images that are mistaken."""
    twins = session.twins(originals, least=least)
    found = {
        kind: sum(
            f"{Path(image_id).stem}{_MARK}{kind}.jpg" in twins.get(image_id, ())
            for image_id in originals[:n_copied]
        )
        / n_copied
        for kind in COPIES
    }
    mistaken = sum(any(not _is_copy(twin, of) for twin in like) for of, like in twins.items())
    return {**found, "mistaken": mistaken / len(originals)}


def _is_copy(image_id: str, of: str) -> bool:
    return image_id.startswith(Path(of).stem + _MARK)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--copied", type=int, default=100)
    parser.add_argument(
        "--shared", type=Path, default=ROOT.parent / "shared", help="folder with bench/ and data/"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    arguments = parser.parse_args()
    columns = (*COPIES, "mistaken")
    print("| case | least cosine | " + " | ".join(columns) + " |\n|" + "---|" * (2 + len(columns)))
    rows = []
    for name in arguments.cases:
        for row in run(name, arguments.shared, arguments.images, arguments.copied):
            rows.append(row)
            print(
                f"| {name} | {row['least']} | " + " | ".join(f"{row[c]:.3f}" for c in columns) + " |",
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"benchmark": "twins", "rows": rows, **provenance()}))


if __name__ == "__main__":
    main()
