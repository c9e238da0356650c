"""The two tiers and what each brings to the ranking: embeddings, the instant head, the judgement."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import NotTrainedError, WorkspaceError
from amatch_widgets.events import Message, ScoresChanged
from amatch_widgets.score.embeddings import EmbeddingStore, default_roots
from amatch_widgets.session.embedding import embed_images
from amatch_widgets.session.evidence import Evidence
from amatch_widgets.session.instant import InstantTier

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.events import Event, EventHub
    from amatch_widgets.images.pixels import PixelPool
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.learn.metrics import Metrics
    from amatch_widgets.learn.start import Start
    from amatch_widgets.query.head import InstantFit, Outside
    from amatch_widgets.query.judge import Judgement
    from amatch_widgets.query.layout import Method
    from amatch_widgets.session.learnable import Learnable
    from amatch_widgets.session.manifest import Manifest
    from amatch_widgets.session.scoreboard import Scoreboard

__all__ = ["Outcome", "Ranking", "Space", "Tiers"]

# What a training looks at more closely: enough for some hundreds of draws, and few enough for a good
# part to be anomalies. In single runs 5 % did no better than 2 %.
_LIKELY, _LEAST_LIKELY = 0.02, 50
_PATIENCE_S = 60.0  # a fit takes less than a second for 100,000 images; more on a machine that is busy


@dataclass(frozen=True, slots=True)
class Ranking:
    """What the instant tier ranks by.

    Attributes
    ----------
    fit : InstantFit
    projection : mapping of str to ndarray
        Arrays of the `Projection` that made the vectors.
    key : dict
        Of the embeddings: how they were made.
    """

    fit: InstantFit
    projection: Mapping[str, npt.NDArray[Any]]
    key: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Space:
    """What the session's embeddings were made with, so that other images can be.

    Attributes
    ----------
    key : dict
        How: network, size, preparation.
    projection : mapping of str to ndarray
        Arrays of the `Projection`.
    """

    key: dict[str, Any]
    projection: Mapping[str, npt.NDArray[Any]]

    @functools.cached_property
    def digest(self) -> str:
        """What names the vectors of this network and projection: 16 hex digits."""
        digest = hashlib.blake2b(json.dumps(self.key, sort_keys=True).encode(), digest_size=8)
        for name in sorted(self.projection):
            digest.update(np.ascontiguousarray(self.projection[name]).tobytes())
        return digest.hexdigest()

    @functools.cached_property
    def dims(self) -> int:
        """Numbers per vector."""
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

        return Projection.from_arrays(self.projection).dims


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the scores of a trained model brought.

    Attributes
    ----------
    metrics : Metrics
        Of the ranking, on the labels that are held out.
    alone : Metrics
        Of the trained model by itself.
    judgement : Judgement or None
        Whether it takes part in the ranking; None where there is nothing to judge it against.
    """

    metrics: Metrics
    alone: Metrics
    judgement: Judgement | None


@dataclass(frozen=True, slots=True, eq=False)
class _Offer:
    """A fit that ranks, and the positions that were labelled before it did."""

    fit: InstantFit
    known: frozenset[int]


class Tiers:
    """Bring both tiers' scores to the scoreboard.

    Parameters
    ----------
    source : ImageSource
    pool : PixelPool
    path : Path
        The session folder; embeddings lie there where the user's cache will not do.
    manifest : callable
        Returns the manifest as it is now.
    keep : callable
        Takes whether the images have an up, and the key of the embeddings, to be kept.
    learnable : Learnable
    outside : callable
        Returns (version, Outside): labelled images of archives.
    board : Scoreboard
    hub : EventHub
        Told when the scores change.

    Notes
    -----
    Thread safety: ``_store``, ``_space`` and ``_is_done`` are replaced as a whole, by the worker's thread,
    ``_offer`` by the instant tier's. `embed` and `use_deep` belong on the worker's thread, all else
    may be called from any.
    """

    def __init__(
        self,
        source: ImageSource,
        pool: PixelPool,
        path: Path,
        *,
        manifest: Callable[[], Manifest],
        keep: Callable[[bool, dict[str, Any]], None],
        learnable: Learnable,
        outside: Callable[[], tuple[int, Outside]],
        board: Scoreboard,
        hub: EventHub,
    ) -> None:
        self._source, self._pool, self._roots = source, pool, default_roots(path)
        self._manifest, self._keep = manifest, keep
        self._learnable, self._board, self._hub = learnable, board, hub
        self._seed = manifest().train.seed
        self._store: EmbeddingStore | None = None
        self._space: Space | None = None
        self._is_done = False  # whether this session has looked through all images
        self._evidence = Evidence(path / "evidence.jsonl", source.ids)
        self._offer: _Offer | None = None  # what the instant tier ranks by
        self._instant = InstantTier(
            learnable, outside, self._use_instant, self._tell_failure, seed=self._seed
        )

    @property
    def is_embedded(self) -> bool:
        """Whether every image that can be read has its embedding."""
        return self._store is not None and self._store.is_complete and self._is_current

    @property
    def note(self) -> str:
        """What ranks, and why, in plain words."""
        note, store = self._board.note, self._store
        if store is not None and not store.is_complete:
            note += f" {store.n_done:,} of {len(self._source):,} images are embedded."
        return note

    @property
    def _is_current(self) -> bool:
        """Whether the embeddings are of the images as they are prepared now."""
        manifest = self._manifest()
        return manifest.embeddings is not None and manifest.embeddings["image"] == manifest.image.to_dict()

    def open(self) -> list[str]:
        """Rank by the embeddings of last time, if they are still there; return what to tell the user."""
        deep = self._board.deep
        if deep is not None:
            cycle, scores = deep
            self._evidence.begin(cycle, None, scores)
        key = self._manifest().embeddings
        if key is None or not self._is_current:
            return []
        try:
            store = EmbeddingStore.open(self._roots, key, len(self._source))
        except WorkspaceError as error:
            return [str(error)]
        if store.n_done:
            self._use_embeddings(store, bool(self._manifest().has_up), key)
            self._instant.wait(_PATIENCE_S)  # the session is then exactly where it was
        else:  # they are gone, and will be made anew
            store.close()
        return []

    def embed(self) -> Generator[Event]:
        """Make the embeddings that are missing, and rank by them; once in a session, if it ends well."""
        if self._is_done:
            return
        manifest = self._manifest()
        dihedral = manifest.train.dihedral
        try:
            yield from embed_images(
                source=self._source,
                pool=self._pool,
                image=manifest.image,
                config=manifest.train,
                has_up=manifest.has_up if dihedral is None else not dihedral,
                roots=self._roots,
                kept=None if self._store is None else (self._store, manifest.embeddings or {}),
                use=self._use_embeddings,
            )
            self._is_done = True
        finally:
            self._instant.wait(_PATIENCE_S)  # so that there are scores when the job has ended

    def prepare(self) -> None:
        """Take note that images are prepared otherwise; the ranking stays until they are embedded anew."""
        self._is_done = False

    def begin(self) -> Start | None:
        """Return where a training starts: the instant tier's ranking by all labels of now.

        None without embeddings or without an anomaly.
        """
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)
        from amatch_widgets.learn.start import Start  # noqa: PLC0415 (imports torch)
        from amatch_widgets.query.head import logit_of  # noqa: PLC0415 (imports scikit-learn)

        store, key = self._store, self._manifest().embeddings
        _, labels = self._learnable()
        fit = self._instant.fit(labels)
        if store is None or store.projection is None or key is None or not self._is_current:
            return None
        if fit is None or fit.weights is None:
            return None
        return Start(
            projection=Projection.from_arrays(store.projection),
            side=key["side"],
            n_views=key["n_views"],
            weights=fit.weights,
            bias=fit.bias,
            likely=_highest(fit.scores, labels),
            logits=logit_of(fit.scores[np.isfinite(fit.scores)]),
        )

    def use_deep(
        self,
        cycle: int,
        step: int | None,
        scores: npt.NDArray[np.float32],
        learnt: Mapping[int, int] | None,
        origin: str = "",
    ) -> Outcome:
        """Take the scores of the model of `cycle` and `step`, and judge it.

        `learnt` are the labels, {index: class}, that the model has learnt from; None: those it had
        when it was trained, in this session or an earlier one. `origin` is the file that the scores
        come from, where the model was trained elsewhere.
        """
        self._evidence.begin(cycle, learnt, scores)
        judgement = self._judge()
        self._board.use_deep(cycle, step, scores, judgement, origin)
        self._tell()
        return Outcome(self._board.metrics, self._board.rate(scores), judgement)

    def has_tested(self, cycle: int) -> bool:
        """Whether labels have tested the model of a cycle already."""
        return self._evidence.has_tested(cycle)

    def similar(
        self,
        indices: npt.NDArray[np.int64],
        k: int,
        *,
        among: npt.NDArray[np.int64] | None = None,
        others: npt.NDArray[np.float16] | None = None,
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the `k` images most like these and those of `others`, vectors; see `Session.similar`."""
        from amatch_widgets.query.neighbours import similar  # noqa: PLC0415 (used here alone)

        store = self._known_store(indices)
        is_done = store.is_done
        if among is None:
            return similar(store.vectors, indices, k, is_usable=is_done, others=others)
        rows = np.union1d(indices, among[is_done[among]])  # a few: the others need not be read
        places = np.searchsorted(rows, indices)
        found, cosines = similar(
            store.vectors[rows], places, k, is_usable=np.ones(len(rows), bool), others=others
        )
        return rows[found], cosines

    def vectors(self, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """Return the vectors of some images, shape (N, D); NotTrainedError if one has none."""
        store = self._known_store(indices)
        return np.asarray(store.vectors[indices])

    def plane(
        self, always: npt.NDArray[np.int64], n: int, method: Method
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return which images are on a map, and where; see `query.layout.plane`."""
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)
        from amatch_widgets.query.layout import plane  # noqa: PLC0415 (used here alone)

        store = self._store
        if store is None or store.projection is None:
            raise NotTrainedError("There are no embeddings yet. Make them first: session.embed().")
        spaces = Projection.from_arrays(store.projection).spaces
        return plane(
            store.vectors, store.is_done, n=n, always=always, spaces=spaces, method=method, seed=self._seed
        )

    @property
    def embeddings(self) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.bool_]] | None:
        """The vectors of all images, shape (N, D), and which images have one; None before there are any."""
        store = self._store
        return None if store is None else (store.vectors, store.is_done)

    def held_out(self, labels: Mapping[int, int]) -> dict[int, float]:
        """Judge each of these labels by fits that were not shown it; see `InstantHead.held_out`."""
        return self._instant.held_out(labels)

    @property
    def space(self) -> Space | None:
        """What the embeddings in use were made with; None before there are any."""
        return self._space if self._is_current else None

    @property
    def ranking(self) -> Ranking | None:
        """What the instant tier ranks by now; None before there are embeddings."""
        store, offer, key = self._store, self._offer, self._manifest().embeddings
        if store is None or store.projection is None or offer is None or key is None:
            return None
        if not self._is_current:
            return None
        return Ranking(offer.fit, store.projection, key)

    def refit(self) -> None:
        """Tell that the labels have changed; returns at once."""
        self._instant.refit()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the labels given so far are in the ranking; False when it takes too long."""
        return self._instant.wait(timeout_s)

    def close(self) -> None:
        """End the instant tier's thread and close the embeddings."""
        self._instant.close()
        self._ask(self._learnable()[1])  # those that no fit was made of any more
        if self._store is not None:
            self._store.close()

    def _known_store(self, indices: npt.NDArray[np.int64]) -> EmbeddingStore:
        """Return the store, in which these images have a vector."""
        store = self._store
        if store is None:
            raise NotTrainedError("There are no embeddings yet. Make them first: session.embed().")
        lacking = indices[~store.is_done[indices]]
        if len(lacking):
            raise NotTrainedError(
                f"{self._source.ids[lacking[0]]!r} has no embedding: it cannot be read, or session.embed() "
                "has not come to it yet. Name another image, or embed first."
            )
        return store

    def _use_embeddings(self, store: EmbeddingStore, has_up: bool, key: dict[str, Any]) -> None:  # noqa: FBT001
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

        if self._store is not None and self._store is not store:
            self._store.close()
        self._store = store
        self._keep(has_up, key)
        assert store.projection is not None  # it holds vectors
        self._space = Space(key, store.projection)
        spaces = Projection.from_arrays(store.projection).spaces
        self._instant.start(store.vectors, spaces, store.is_done)

    def _use_instant(self, fit: InstantFit, learnt: Mapping[int, int]) -> None:
        """Take a new fit; on the instant tier's thread."""
        now = self._learnable()[1]
        self._ask(now)
        self._offer = _Offer(fit, frozenset(learnt.keys() | now.keys()))
        self._board.use_instant(fit, self._judge())
        self._tell()

    def _ask(self, now: Mapping[int, int]) -> None:
        """Ask what the last fit thought of the labels that were given while it ranked."""
        offer = self._offer
        if offer is not None and offer.fit.kind == "labels":  # novelty is a ranking of another kind
            self._evidence.ask(now, offer.fit.scores, offer.known | self._learnable.merged())

    def _tell_failure(self, error: Exception) -> None:
        """Say that a fit failed; on the instant tier's thread."""
        text = (
            f"The ranking does not follow the last labels: {type(error).__name__}: {error}. The labels are "
            "safe, and the next one tries again. If it stays so, close the session and open it anew."
        )
        self._hub.publish(Message("error", text))

    def _judge(self) -> Judgement | None:
        """Judge the deep tier by all labels that tested it; None where there is no instant tier."""
        return self._evidence.judgement(self._learnable()[1]) if self._store is not None else None

    def _tell(self) -> None:
        board = self._board
        n_scored = int(np.isfinite(board.scores).sum())
        self._hub.publish(ScoresChanged(board.cycle or 0, n_scored, board.ranked_by or ""))


def _highest(scores: npt.NDArray[np.float32], labels: Mapping[int, int]) -> npt.NDArray[np.int64]:
    """Return the positions of the highest scores among the images without a label."""
    free = np.where(np.isfinite(scores), scores, -np.inf)
    free[list(labels)] = -np.inf
    n = min(max(_LEAST_LIKELY, round(_LIKELY * len(scores))), int(np.isfinite(free).sum()))
    return np.sort(np.argpartition(-free, n - 1)[:n]) if n else np.empty(0, np.int64)
