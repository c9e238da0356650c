"""What a file that leaves a session was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from amatch_widgets.session.tiers import Ranking

__all__ = ["SOFTWARE", "Provenance", "model_hash", "software"]

SOFTWARE = "amatch-widgets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a table of images is of, and what ranked it.

    Attributes
    ----------
    software : str
        Name and version.
    date : str
        When the table was made, ISO 8601 in UTC.
    session : str
        Name of the session folder.
    source : str
        Name of the set of images.
    fingerprint : str
        Changes when the set of images changes.
    n_images : int
        Of the set.
    ranked_by : str
        "novelty", "instant", "deep", "both" (tiers), or "" where there are no scores.
    ranking : str
        What ranks, in plain words.
    model : str
        32 hex digits, the same where the same weights rank, see `model_hash`; "" where nothing ranks or the
        weights are not there any more.
    """

    software: str
    date: str
    session: str
    source: str
    fingerprint: str
    n_images: int
    ranked_by: str
    ranking: str
    model: str

    def to_dict(self) -> dict[str, str | int]:
        """Return what is JSON-able."""
        return asdict(self)


def software() -> str:
    """Return name and version of this package."""
    try:
        return f"{SOFTWARE} {version(SOFTWARE)}"
    except PackageNotFoundError:  # run from a source tree
        return f"{SOFTWARE} (version unknown)"


def model_hash(
    ranked_by: str | None, ranking: Ranking | None, checkpoint: Path | None, weight: float | None
) -> str:
    """Return a digest of all weights that rank.

    Parameters
    ----------
    ranked_by : {"novelty", "instant", "deep", "both"} or None
    ranking : Ranking or None
        Of the instant tier.
    checkpoint : Path or None
        Of the trained model whose scores count.
    weight : float or None
        Of the trained model beside the instant tier.

    Returns
    -------
    str
        32 hex digits; "" where nothing ranks, or weights that do are not there any more: of the checkpoints
        the last two are kept.
    """
    if ranked_by is None:
        return ""
    digest = hashlib.blake2b(digest_size=16)
    if ranked_by != "deep":
        if ranking is None:
            return ""
        digest.update(_canonical([ranked_by, ranking.key, ranking.fit.bias]))
        for name, array in sorted(ranking.projection.items()):
            digest.update(
                _canonical([name, array.dtype.str, array.shape]) + np.ascontiguousarray(array).tobytes()
            )
        if ranking.fit.weights is not None:
            digest.update(np.ascontiguousarray(ranking.fit.weights).tobytes())
    if ranked_by in ("deep", "both"):
        if checkpoint is None:
            return ""
        try:
            with checkpoint.open("rb") as file:
                digest.update(_canonical([weight if ranked_by == "both" else None]))
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError:
            return ""
    return digest.hexdigest()


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
