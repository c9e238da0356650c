"""Score all images of a source, streamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from amatch_widgets.learn.augment import to_float

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt

    from amatch_widgets.images.pixels import PixelPool
    from amatch_widgets.learn.backbone import Classifier

__all__ = ["score_batches"]


def score_batches(
    model: Classifier, pool: PixelPool, *, batch_size: int = 256
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
    """Score every readable image, in the order of the source.

    Reading and decoding run ahead on the pool's threads while the model works.

    Parameters
    ----------
    model : Classifier
        Used in evaluation mode, on the device where it is.
    pool : PixelPool
    batch_size : int, >= 1
        Images scored at once.

    Yields
    ------
    indices : ndarray of int64, shape (n,)
        Positions in the source; images that cannot be read are left out (see ``pool.problems``).
    scores : ndarray of float32, shape (n,)
        The softmax probability of the class *anomaly*, in [0, 1].
    """
    model.eval()
    device = model.head.weight.device
    for images, indices in pool.stream(batch_size=batch_size):
        # inside the loop: a generator must not hold inference mode while its consumer runs
        with torch.inference_mode():
            x = torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2)
            logits = model(to_float(x).contiguous(memory_format=torch.channels_last))
            scores = logits.float().softmax(1)[:, 1].cpu().numpy()
        yield indices, scores
