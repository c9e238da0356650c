"""The job that makes the embeddings of all images, once per source and backbone."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import SourceError
from amatch_widgets.events import EmbeddingProgress, Event, Message
from amatch_widgets.score.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from amatch_widgets.images.pixels import PixelPool
    from amatch_widgets.images.preprocess import Preprocess
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.learn.backbone import Classifier
    from amatch_widgets.learn.config import TrainConfig
    from amatch_widgets.learn.embed import Embedder

__all__ = ["digest", "embed_images"]

_MAX_DIMS = 512  # numbers per vector, at most: what a disk needs room for
_FORMAT = 1
_SAMPLE = 4096  # images that the projection is fitted on
_TURNED = 256  # images that are turned to see whether there is an up

# Side at which images are fed. Smooth objects on a dark sky lose when they are enlarged; what an
# ImageNet backbone has learnt of the everyday world, it has learnt at about 200 px.
_SIDE_WITH_UP, _SIDE_WITHOUT_UP = 192, 128
_TURNS = 4  # quarter turns averaged over, of images without an up


def embed_images(
    *,
    source: ImageSource,
    pool: PixelPool,
    image: Preprocess,
    config: TrainConfig,
    has_up: bool | None,
    roots: Sequence[Path],
    kept: tuple[EmbeddingStore, dict[str, Any]] | None,
    use: Callable[[EmbeddingStore, bool, dict[str, Any]], None],
) -> Generator[Event]:
    """Embed every image that has no embedding yet; closed before its end, it keeps what there is.

    Parameters
    ----------
    source, pool, image, config
        Of the session.
    has_up : bool or None
        Whether the images have an up; None to measure it.
    roots : sequence of Path
        Folders that the embeddings may be kept in.
    kept : (EmbeddingStore, dict) or None
        The store in use and its key.
    use : callable
        Takes the store, whether the images have an up, and the store's key, when there is
        something to rank by.

    Yields
    ------
    EmbeddingProgress, Message

    Raises
    ------
    SourceError
        If not one image can be read.
    WorkspaceError
        If the embeddings cannot be kept anywhere.
    """
    from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)
    from amatch_widgets.learn.embed import Embedder, orientation  # noqa: PLC0415 (imports torch)
    from amatch_widgets.learn.trainer import choose_device  # noqa: PLC0415 (imports torch)

    n, rng = len(source), np.random.default_rng(config.seed)
    model = build_classifier(
        config.backbone, channels=image.channels, weights=config.weights, seed=config.seed
    ).to(choose_device(config.device))
    if has_up is None:
        yield EmbeddingProgress(0, n, 0.0, float("inf"))
        few, _ = pool.batch(np.sort(rng.choice(n, min(n, _TURNED), replace=False)))
        has_up = bool(len(few)) and orientation(Embedder(model, side=_SIDE_WITHOUT_UP, n_views=1), few).has_up
    side = config.embed_px or (_SIDE_WITH_UP if has_up else _SIDE_WITHOUT_UP)
    embedder = Embedder(model, side=side, n_views=1 if has_up else _TURNS)
    key = {
        "format": _FORMAT,
        "source": source.fingerprint(),
        "n_images": n,
        "image": image.to_dict(),
        "backbone": config.backbone,
        "weights": digest(model),
        "side": side,
        "n_views": embedder.n_views,
    }
    store = (
        kept[0]
        if kept is not None and kept[1] == key
        else EmbeddingStore.open(roots, key, n, max_dims=_MAX_DIMS)
    )
    try:
        if store.notice:
            yield Message("warning", store.notice)
        yield from _fill(store, embedder, pool, config, rng)
    finally:
        if store.n_done:
            use(store, has_up, key)
        else:
            store.close()
    if not store.n_done:
        image_id, reason = next(iter(pool.problems.items()))
        raise SourceError(
            f"None of the {len(pool.problems)} images could be read; the first, {image_id!r}: {reason}. "
            "session.problems lists them all."
        )


def _fill(
    store: EmbeddingStore,
    embedder: Embedder,
    pool: PixelPool,
    config: TrainConfig,
    rng: np.random.Generator,
) -> Generator[Event]:
    from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

    n, started, n_embedded = len(pool), time.perf_counter(), 0

    def progress(n_more: int, n_done: int) -> EmbeddingProgress:
        nonlocal n_embedded
        n_embedded += n_more
        rate = n_embedded / max(time.perf_counter() - started, 1e-9)
        return EmbeddingProgress(n_done, n, rate, (n - n_done) / rate)

    if store.projection is None:
        sample = np.sort(rng.choice(n, min(n, _SAMPLE), replace=False))
        found, raws = [], []
        for images, indices in pool.stream(sample, batch_size=config.score_batch):
            found.append(indices)
            raws.append(embedder.raw(images))
            yield progress(len(indices), n_embedded + len(indices))
        if not found:
            return  # nothing can be read
        raw = np.concatenate(raws)
        projection = Projection.fit(raw, embedder.blocks, seed=config.seed)
        store.set_projection(projection.to_arrays(), projection.dims)
        store.write(np.concatenate(found), projection.apply(raw))
        store.flush()
        del raws, raw
    kept = store.projection
    assert kept is not None
    projection = Projection.from_arrays(kept)
    is_shared = store.is_complete  # and is not written any more
    missing = np.flatnonzero(~store.is_done)  # those that could not be read are tried by each session
    n_done = n_before = n - len(missing)
    try:
        for images, indices in pool.stream(missing, batch_size=config.score_batch):
            if not is_shared:
                store.write(indices, projection.apply(embedder.raw(images)))
            n_done += len(indices)
            yield progress(len(indices), n_done)
        if not is_shared:
            store.mark_unreadable(np.flatnonzero(~store.is_done))
    finally:
        if not is_shared:
            store.flush()
    if is_shared and n_done > n_before:
        yield Message(
            "warning",
            f"{n_done - n_before} images that could not be read when the embeddings were made can be now. "
            f"To embed them too, close all sessions on these images and delete {str(store.folder)!r}.",
        )


def digest(model: Classifier) -> str:
    """Return a digest of the weights that embeddings depend on: all but the head's."""
    digest = hashlib.sha256()
    head = {id(parameter) for parameter in model.head.parameters()}
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) not in head:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
