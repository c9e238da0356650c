"""One image prepared in two ways, for two models that were trained on different preparations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from amatch_widgets.images.fitsbolt import FitsboltInput
    from amatch_widgets.images.preprocess import Preprocess

__all__ = ["Pair"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Prepare each image twice, so that it is read once.

    Attributes
    ----------
    first : Preprocess
    second : FitsboltInput
    """

    first: Preprocess
    second: FitsboltInput

    min_side: ClassVar[None] = None  # files are read at their full size, as `second` needs them

    @property
    def shape(self) -> tuple[int]:
        """Of a result: the bytes of both, one after the other."""
        return (math.prod(self.first.shape) + math.prod(self.second.shape),)

    def __call__(self, image: NDArray[Any]) -> NDArray[np.uint8]:
        """Prepare one image, shape (H, W, B); ValueError where either cannot be made, in plain words."""
        return np.concatenate([self.first(image).ravel(), self.second(image).ravel()])

    def split(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return what each model sees of images, shape (N, *shape): arrays of shape (N, S, S, C)."""
        n = math.prod(self.first.shape)
        first, second = images[:, :n], images[:, n:]
        return first.reshape(-1, *self.first.shape), second.reshape(-1, *self.second.shape)

    def to_dict(self) -> dict[str, Any]:
        """Return the options of both, JSON-able."""
        return {"first": self.first.to_dict(), "second": self.second.to_dict()}
