"""The scores of all images, and what follows from them: rankings, queries, metrics, the shortlist."""

from __future__ import annotations

import dataclasses
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from amatch_widgets.errors import ConfigError, NotTrainedError, WorkspaceError
from amatch_widgets.learn.metrics import Metrics, evaluate
from amatch_widgets.query.strategies import Candidate, order, pick, ranks, rising
from amatch_widgets.session.export import shortlist
from amatch_widgets.session.selection import Filter, Selection, Show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy.typing as npt
    import pandas as pd

    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import LabelStore
    from amatch_widgets.query.head import InstantFit
    from amatch_widgets.query.judge import Judgement
    from amatch_widgets.score.store import ScoreStore

__all__ = ["IMPORTED", "Scoreboard"]

IMPORTED = "imported="  # in place of "step=" in the record of scores: a file comes after it

_T = TypeVar("_T")
_PAGE = 24  # labels after which the ranking is a new one, to tell what has risen
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Deep:
    """The trained model's scores, its weight beside the instant tier, and why that is its weight."""

    cycle: int
    step: int | None
    scores: npt.NDArray[np.float32]
    weight: float = 0.0
    verdict: str = "it was not judged"
    origin: str = ""  # the file that the scores come from, where the model was trained elsewhere

    @property
    def name(self) -> str:
        """Which model, in plain words."""
        return f"model behind {self.origin}" if self.origin else f"model of cycle {self.cycle}"


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What ranks: one snapshot, so that no reader sees half a change."""

    version: int
    ranked_by: str | None
    scores: npt.NDArray[np.float32]
    step: int | None
    note: str


@dataclass(frozen=True, slots=True, eq=False)
class _Past:
    """An earlier ranking: its scores, and the number of changes of labels and the cycle it knew."""

    scores: npt.NDArray[np.float32]
    n_changes: int
    cycle: int | None


class Scoreboard:
    """How the images stand: the instant tier's scores, the trained model's, and what both make together.

    The trained model takes part in the ranking once it was judged better; where there are no
    embeddings, it ranks alone.

    Parameters
    ----------
    source : ImageSource
    index : mapping of str to int
        Id to position in the source.
    labels : LabelStore
    store : ScoreStore
        Its last complete cycle is read.
    problems : callable
        Returns the ids of the images that cannot be read.
    seed : int
        Of the bootstrap and of random queries.

    Notes
    -----
    Thread safety: ``_changing`` guards ``_deep``, ``_fit`` and ``_past``; ``_shown`` is replaced as a whole
    under it and may be read at any time. ``_caching`` guards the dict ``_cache``, whose entries
    (key, value) are never changed. All may be called from any thread.
    """

    def __init__(
        self,
        source: ImageSource,
        index: Mapping[str, int],
        labels: LabelStore,
        *,
        store: ScoreStore,
        problems: Callable[[], Iterable[str]],
        seed: int,
    ) -> None:
        self._source, self._index, self._labels, self._seed = source, index, labels, seed
        self._problems = problems
        self._selection = Selection(source.ids, index, labels, problems)
        self._caching = threading.Lock()
        self._cache: dict[str, tuple[object, Any]] = {}
        self._changing = threading.Lock()
        self._deep = _last(store, len(source))
        self._fit: InstantFit | None = None
        self._shown = _Shown(0, None, _frozen(np.full(len(source), np.nan, np.float32)), None, "")
        self._past: tuple[_Past, ...] = ()  # the ranking a page or a cycle ago, and that of the last change
        self._show()

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores of all images, float32 in [0, 1], shape (N,); NaN where there is none. Read-only."""
        return self._shown.scores

    @property
    def deep(self) -> tuple[int, npt.NDArray[np.float32]] | None:
        """The last cycle whose model scored the images, and its scores; None before there is one."""
        deep = self._deep
        return None if deep is None else (deep.cycle, deep.scores)

    @property
    def deep_model(self) -> tuple[int, int | None, float] | None:
        """Cycle, step, and weight beside the instant tier, of the trained model that scored the images."""
        deep = self._deep
        return None if deep is None else (deep.cycle, deep.step, deep.weight)

    @property
    def deep_name(self) -> str:
        """Which trained model scored the images, in plain words; "" before there is one."""
        deep = self._deep
        return "" if deep is None else deep.name

    @property
    def origin(self) -> str:
        """The file that the trained model's scores come from; "" where it was trained here."""
        deep = self._deep
        return "" if deep is None else deep.origin

    @property
    def blended(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float] | None:
        """The scores of both tiers and the weight of the trained model; None unless both rank."""
        fit, deep = self._fit, self._deep
        if self.ranked_by != "both" or fit is None or deep is None:
            return None
        return fit.scores, deep.scores, deep.weight

    @property
    def cycle(self) -> int | None:
        """The last cycle whose model scored the images, or None."""
        deep = self._deep
        return None if deep is None else deep.cycle

    @property
    def version(self) -> int:
        """A number that grows whenever the scores change."""
        return self._shown.version

    @property
    def ranked_by(self) -> str | None:
        """What ranks: "novelty", "instant", "deep", "both", or None before there are scores."""
        return self._shown.ranked_by

    @property
    def note(self) -> str:
        """What ranks, in plain words."""
        return self._shown.note

    def use_deep(
        self,
        cycle: int,
        step: int | None,
        scores: npt.NDArray[np.float32],
        judgement: Judgement | None,
        origin: str = "",
    ) -> None:
        """Take the scores of the model of `cycle` and `step`; without a judgement it has no weight.

        `origin` is the file they come from, where the model was trained elsewhere.
        """
        with self._changing:
            self._deep = _judged(_Deep(cycle, step, _frozen(scores), origin=origin), judgement)
            self._show()
            self._keep_past()

    def use_instant(self, fit: InstantFit, judgement: Judgement | None) -> None:
        """Take a new fit of the instant tier, and what the labels now say of the trained model."""
        with self._changing:
            self._fit = fit
            if self._deep is not None:
                self._deep = _judged(self._deep, judgement)
            self._show()
            self._keep_past()

    def _keep_past(self) -> None:
        """Keep the ranking that the next ones are compared with: that of a page or a cycle ago."""
        now = _Past(self._shown.scores, self._labels.version, self.cycle)
        last = self._past[-1] if self._past else now
        is_new = now.n_changes >= last.n_changes + _PAGE or now.cycle != last.cycle
        self._past = (*self._past, now)[-2:] if is_new or not self._past else self._past

    def _show(self) -> None:
        """Make the snapshot that ranks."""
        from amatch_widgets.query.blend import blend  # noqa: PLC0415 (SciPy's statistics take their time)

        fit, deep, version = self._fit, self._deep, self._shown.version + 1
        if fit is None and deep is None:
            return
        if fit is None or (fit.kind == "novelty" and deep is not None):
            assert deep is not None
            trained = deep.name if deep.origin else f"model trained in cycle {deep.cycle}"
            note = f"Ranked by the {trained}."
            self._shown = _Shown(version, "deep", deep.scores, deep.step, note)
        elif fit.kind == "novelty":
            note = "No anomaly is labelled yet: ordered by novelty, the distance from the bulk of the images."
            self._shown = _Shown(version, "novelty", _frozen(fit.scores), None, note)
        else:
            labels = f"{_count(fit.n_anomalies, 'anomaly', 'anomalies')}, {_count(fit.n_normals, 'normal')}"
            note = f"Ranked by the instant tier, from {labels}."
            if deep is None or not deep.weight:
                if deep is not None:
                    note += f" The {deep.name} ranks nothing: {deep.verdict}."
                self._shown = _Shown(version, "instant", _frozen(fit.scores), None, note)
            else:
                note += f" The {deep.name} takes part: {deep.verdict}."
                mixed = blend(fit.scores, deep.scores, deep.weight)
                self._shown = _Shown(version, "both", _frozen(mixed), deep.step, note)

    def of(self, image_ids: Iterable[str]) -> tuple[dict[str, float], int | None]:
        """Return the scores of some images, and the step of the trained model behind them, if one is."""
        now = self._shown
        return {i: float(now.scores[self._index[i]]) for i in image_ids}, now.step

    @property
    def metrics(self) -> Metrics:
        """How well the scores rank the held-out labels, now."""
        now = self._shown
        return self._cached("metrics", (self._labels.version, now), lambda: self.rate(now.scores))

    def query(self, n: int, strategy: str, leave_out: Iterable[str] = ()) -> list[Candidate]:
        """Choose images without a label that can be read; see `Session.query`."""
        seed = self._seed + len(self._labels)
        return self.candidates(pick(self.scores, self.free(leave_out), n, strategy, seed=seed))

    def free(self, leave_out: Iterable[str] = ()) -> npt.NDArray[np.int64]:
        """Return the positions of the images that have no label and can be read, but for some."""
        is_free = np.ones(len(self._index), bool)  # a mask: NumPy's setdiff1d takes a second for a million
        is_free[self.places([*self._labels.current(), *self._problems(), *leave_out])] = False
        return np.flatnonzero(is_free).astype(np.int64, copy=False)

    @property
    def n_free(self) -> int:
        """How many images have no label and can be read; asked twice a second, and so only counted."""
        return len(self._index) - len({*self.places([*self._labels.current(), *self._problems()]).tolist()})

    def candidates(self, chosen: Iterable[tuple[int, str]]) -> list[Candidate]:
        """Return positions and reasons as a user sees them."""
        ids, scores = self._source.ids, self.scores
        return [
            Candidate(ids[i], float(scores[i]) if np.isfinite(scores[i]) else None, reason)
            for i, reason in chosen
        ]

    def ranking(self, how: str, show: Show, only: Filter, seed: int) -> npt.NDArray[np.int64]:
        """Return the positions of images in an order to look at; see `Session.ranking`."""
        now = self._shown
        n_problems = len(list(self._problems())) if show == "problem" else 0
        key = (how, show, only, seed, self._labels.version, n_problems, now, self._past)
        return self._cached("ranking", key, lambda: self._rank(now.scores, how, show, only, seed))

    def rise(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the ranks of all images a page or a cycle ago, and now; see `Session.rise`."""
        now, past = self._shown, self._past

        def make() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            found = ranks(past[0].scores if past else now.scores), ranks(now.scores)
            for array in found:
                array.setflags(write=False)
            return found

        return self._cached("rise", (now, past), make)

    def highest(self, n: int) -> npt.NDArray[np.int64]:
        """Return the positions of the `n` images that rank highest now, or of as many as have a score."""
        n_scored = int(np.isfinite(self.scores).sum())
        return self.ranking("highest", "all", Filter(), 0)[: min(n, n_scored)]

    def places(self, image_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the positions of images in the source; ids that are not there are left out."""
        return np.array([self._index[i] for i in image_ids if i in self._index], np.int64)

    def find(self, contains: str) -> npt.NDArray[np.int64]:
        """Return the positions of all images whose id contains a text."""
        return self._selection.find(contains)

    def choose(self, n: int | None) -> npt.NDArray[np.int64]:
        """Return the positions of the `n` highest scores, or of all labelled images by score.

        Raises
        ------
        NotTrainedError
            If the highest scores are asked for before there are any.
        ConfigError
            If `n` is negative.
        """
        if n is None:
            return self.ranking("highest", "labelled", Filter(), 0)
        if n < 0:
            raise ConfigError(f"n is {n}; it must be 0 or more.")
        n_scored = int(np.isfinite(self.scores).sum())
        if not n_scored:
            raise NotTrainedError("There are no scores yet. Train first: session.train().")
        return self.ranking("highest", "all", Filter(), 0)[: min(n, n_scored)]

    def shortlist(self, chosen: npt.NDArray[np.int64]) -> pd.DataFrame:
        """Return images as a table, see `session.export.shortlist`."""
        scores = self.scores
        n_scored = int(np.isfinite(scores).sum())
        ranks = np.zeros(len(scores), np.int64)
        ranks[self.ranking("highest", "all", Filter(), 0)[:n_scored]] = np.arange(1, n_scored + 1)
        fit, deep = self._fit, self._deep
        return shortlist(
            self._source,
            scores,
            ranks,
            self._labels.history(),
            chosen,
            instant=None if fit is None else fit.scores,
            deep=None if deep is None else deep.scores,
        )

    def rate(self, scores: npt.NDArray[np.float32]) -> Metrics:
        """Return how well some scores rank the held-out labels."""
        held_out = self._labels.for_split("test")
        known = [(self._index[i], label == "anomaly") for i, label in held_out.items() if i in self._index]
        rated = [(index, truth) for index, truth in known if np.isfinite(scores[index])]
        indices = np.array([index for index, _ in rated], np.int64)
        return evaluate(np.array([truth for _, truth in rated], bool), scores[indices], seed=self._seed)

    def _rank(
        self, scores: npt.NDArray[np.float32], how: str, show: Show, only: Filter, seed: int
    ) -> npt.NDArray[np.int64]:
        subset = self._selection.choose(show, only, scores)
        if how == "recent":  # among what is labelled
            latest = self._selection.choose("labelled", Filter(), scores)
            assert latest is not None  # not all
            subset = latest if subset is None else latest[np.isin(latest, subset)]
        if how == "rising":
            before, now = self.rise()
            ranking = rising(now, before, subset=subset)
        else:
            ranking = order(scores, how, subset=subset, seed=seed)
        ranking.setflags(write=False)
        return ranking

    def _cached(self, name: str, key: object, make: Callable[[], _T]) -> _T:
        """Keep the last value of each name, so that asking twice costs nothing."""
        with self._caching:
            found = self._cache.get(name)
        if found is None or found[0] != key:
            found = (key, make())
            with self._caching:
                self._cache[name] = found
        value: _T = found[1]
        return value


def _last(store: ScoreStore, n: int) -> _Deep | None:
    """Read the last cycle that can be read; damaged scores must not bar the way to the labels."""
    for cycle in reversed(store.cycles()):
        try:
            scores, model = store.load(cycle, n), store.info(cycle).model
        except WorkspaceError as error:
            _log.warning("%s Until then the scores before them are used.", error)
            continue
        step, origin = model.removeprefix("step="), model.removeprefix(IMPORTED)
        return _Deep(
            cycle,
            int(step) if step.isdecimal() else None,
            _frozen(scores),
            origin=origin if origin != model else "",
        )
    return None


def _judged(deep: _Deep, judgement: Judgement | None) -> _Deep:
    if judgement is None:
        return deep
    return dataclasses.replace(deep, weight=judgement.weight, verdict=str(judgement))


def _frozen(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scores.setflags(write=False)
    return scores


def _count(n: int, singular: str, plural: str = "") -> str:
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"
