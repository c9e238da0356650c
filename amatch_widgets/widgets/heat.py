"""The map of why an image scored so, as a picture to lay over it, and in words."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.widgets.thumbnails import data_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amatch_widgets.session import Session
    from amatch_widgets.session.explain import Explanation

__all__ = ["explained", "heat_picture"]

# Orange and blue are told apart by eyes that mix up red and green; the template's legend has them too.
_FOR, _AGAINST = (255, 140, 0), (51, 153, 255)
_FAINT = 0.12  # of the strongest part; what is less is not worth a look, and is left clear
# A part counts for much if it takes a quarter of the way to the mean of all images. Where none does, the
# strongest is drawn pale: a crowded field may have its score from everywhere.
_MUCH, _LEAST, _MEAN_LOGIT = 0.25, 0.5, -2.0


def explained(
    session: Session, image_id: str, shape: tuple[int, ...], *, coarse: bool = False
) -> dict[str, Any]:
    """Explain an image's score, for the browser.

    Parameters
    ----------
    session : Session
    image_id : str
    shape : tuple of int
        Height and width of the image in full, px; more may follow.
    coarse : bool
        As of `Session.explain`.

    Returns
    -------
    dict
        ``url`` of the picture, ``at`` (left, top, width and height of the part of the image that the
        model sees, px), and ``rows`` of words.
    """
    explanation = session.explain(image_id, coarse=coarse)
    url = data_url(heat_picture(explanation.losses, _much(explanation)))
    at = list(session.image.window(*shape[:2]))
    return {"url": url, "at": at, "rows": _words(explanation, session.ranked_by)}


def heat_picture(losses: NDArray[np.float32], much: float) -> bytes:
    """Draw a map of losses: orange for what speaks for an anomaly, blue for what speaks against it.

    Parameters
    ----------
    losses : ndarray of float32, shape (H, W)
        As of `Explanation`.
    much : float, > 0
        What is drawn in full, if no loss is more.

    Returns
    -------
    bytes
        PNG of the same size with alpha: clear where the loss is about 0, full where it is most.
    """
    from PIL import Image  # noqa: PLC0415 (import amatch_widgets must be quick)

    strength = np.abs(losses) / max(float(np.abs(losses).max(initial=0)), much)
    rgba = np.empty((*losses.shape, 4), np.uint8)
    rgba[..., :3] = np.where((losses > 0)[..., None], _FOR, _AGAINST)
    rgba[..., 3] = np.rint(255 * np.clip((strength - _FAINT) / (1 - _FAINT), 0, 1))
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return buffer.getvalue()


def _much(explanation: Explanation) -> float:
    """Return how large a loss of the logit has to be to count for much."""
    return max(_LEAST, _MUCH * abs(explanation.logit - _MEAN_LOGIT))


def _words(explanation: Explanation, ranked_by: str | None) -> list[str]:
    """Say what the map shows beside its colours."""
    strongest = float(np.abs(explanation.losses).max())
    score, without = explanation.score, explanation.score_without
    rows = [f"Score {score:.3f}; about {without:.3f} without the part that counts most."]
    if strongest < _much(explanation):
        rows.append("No single part counts for much, so the colours are pale.")
    if ranked_by in ("deep", "both"):
        rows.append("The trained model, which ranks too, was not asked.")
    share = len(explanation.losses) / explanation.patch_px[-1]
    rows.append(f"Nothing finer than 1/{share:.0f} of the image can be told apart.")
    return rows
