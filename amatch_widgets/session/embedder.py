"""The network that embeddings were made with, kept ready on the worker's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amatch_widgets.errors import StateError
from amatch_widgets.session.embedding import digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from amatch_widgets.learn.embed import Embedder
    from amatch_widgets.learn.inference import Precision
    from amatch_widgets.session.manifest import Manifest

__all__ = ["ReadyEmbedder"]


class ReadyEmbedder:
    """Returns the network of a key of embeddings; the last one is kept.

    That takes tens of MB, where making it anew takes longer than asking it.

    Parameters
    ----------
    manifest : callable
        Returns the manifest as it is now.
    precision : {"auto", "float32"}
        "auto" is that of the embeddings.

    Notes
    -----
    Thread safety: belongs on the worker's thread.
    """

    def __init__(self, manifest: Callable[[], Manifest], precision: Precision = "auto") -> None:
        self._manifest, self._precision = manifest, precision
        self._last: tuple[dict[str, Any], Embedder] | None = None

    def __call__(self, key: dict[str, Any]) -> Embedder:
        """Return the network that the embeddings of this key were made with.

        Raises
        ------
        StateError
            If its weights are others now.
        """
        from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.embed import Embedder  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.trainer import choose_device  # noqa: PLC0415 (imports torch)

        if self._last is None or self._last[0] != key:
            self._last, config = None, self._manifest().train
            # It leaves the random numbers of a training alone.
            model = build_classifier(
                config.backbone,
                channels=self._manifest().image.channels,
                weights=config.weights,
                seed=config.seed,
            )
            if digest(model) != key["weights"]:
                raise StateError(
                    "The weights of the network are others than those the embeddings were made with, so no "
                    "image can be held against them. Open a new session."
                )
            model = model.to(choose_device(config.device))
            options = {"side": key["side"], "n_views": key["n_views"]}
            self._last = key, Embedder(model, **options, precision=self._precision)
        return self._last[1]
