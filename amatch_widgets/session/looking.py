"""The part of a session that says what to look at, and shows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from amatch_widgets.errors import ConfigError
from amatch_widgets.images.render import Rendering
from amatch_widgets.labels import ANOMALY, CLASSES, NORMAL
from amatch_widgets.query.discovery import PAGE, Discovery, discovery
from amatch_widgets.query.second_look import contradiction
from amatch_widgets.session.atlas import ImageMap, of_note
from amatch_widgets.session.mixture import mixed_page
from amatch_widgets.session.parts import Parts
from amatch_widgets.session.selection import Filter, Show

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    import pandas as pd

    from amatch_widgets.learn.metrics import Metrics
    from amatch_widgets.query.estimate import Remaining
    from amatch_widgets.query.layout import Method
    from amatch_widgets.query.strategies import Candidate
    from amatch_widgets.session.explain import Explanation

__all__ = ["Looking"]

_THUMBNAIL_PX = 128
_NO_AUDIT = "What is left to find is estimated from pages in the order “Mixed, with audit”."
_AS_IT_IS = Rendering()
_PATIENCE_S = 30.0  # for the instant tier to learn from the last labels, on a machine that is busy


class Looking(Parts):
    """Scores, queries, pictures and tables of a `Session`."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores of all images, float32 in [0, 1], shape (N,); NaN where there is none. Read-only."""
        return self._board.scores

    @property
    def scores_version(self) -> int:
        """A number that grows whenever the scores change."""
        return self._board.version

    @property
    def scores_cycle(self) -> int | None:
        """The last cycle whose trained model has scored the images, 0 for imported scores, or None."""
        return self._board.cycle

    @property
    def scores_model(self) -> str:
        """Which trained model has scored the images, e.g. "model of cycle 3"; "" before there is one."""
        return self._board.deep_name

    @property
    def ranked_by(self) -> str | None:
        """What ranks: "novelty", "instant", "deep", "both" (tiers), or None before there are scores."""
        return self._board.ranked_by

    @property
    def ranking_note(self) -> str:
        """What ranks, and why, in plain words."""
        return self._tiers.note

    def standing(self, image_id: str) -> tuple[float | None, int | None]:
        """Return the score of an image and its rank, counted from 1; None where it has no score.

        An image of an archive has the score of when it was seen last, and no rank.
        """
        self._check_ids([image_id])
        archive = self._archives.of(image_id)
        if image_id not in self._index and archive is not None:
            return archive.standing(image_id), None
        scores = self.scores
        score = float(scores[self._index[image_id]])
        return (None, None) if np.isnan(score) else (score, 1 + int(np.count_nonzero(scores > score)))

    @property
    def metrics(self) -> Metrics:
        """How well the scores rank the held-out labels, now."""
        return self._board.metrics

    @property
    def discovery(self) -> Discovery:
        """How many anomalies each look has brought, and what the next page is likely to bring."""
        return discovery(self.own_labels.history())

    def query(
        self,
        n: int = 24,
        *,
        strategy: Literal["top", "uncertain", "random", "mixed"] = "top",
        leave_out: Iterable[str] = (),
        wait: bool = True,
    ) -> list[Candidate]:
        """Return images without a label that are worth a look.

        Parameters
        ----------
        n : int, >= 0
        strategy : {"top", "uncertain", "random", "mixed"}
            "mixed": 5 in 8 from the top, 1 in 8 uncertain, 1 in 8 unlike the anomalies so far, and 1
            in 8 an audit: drawn at random, with a chance that is noted, so that `remaining` can tell
            what is left to find. Label all images of an audit.
        leave_out : iterable of str
            Ids of images that are not wanted, such as those shown already.
        wait : bool
            Wait until the instant tier has learnt from all labels given so far: less than a second
            for 100,000 images.

        Returns
        -------
        list of Candidate
            Id, score and reason. Images that could not be read are left out.
        """
        if wait:
            self._teaching.wait(_PATIENCE_S)
            self._tiers.wait(_PATIENCE_S)
        if strategy != "mixed":
            return self._board.query(n, strategy, leave_out)
        if n < 0:
            raise ConfigError(f"n is {n}; it must be 0 or more.")
        labels = self.labels.current()
        chosen = mixed_page(
            n,
            ids=self.source.ids,
            scores=self.scores,
            free=self._board.free(leave_out),
            anomalies=[
                self._index[i]
                for i, line in self.own_labels.current().items()
                if line.label == ANOMALY and i in self._index
            ],
            embeddings=lambda: self._tiers.embeddings,
            audits=self._audits,
            seed=self.config.seed + len(labels),
        )
        return self._board.candidates(chosen)

    def suspicious(self, n: int = 24) -> list[Candidate]:
        """Return labelled images that the ranking contradicts most: worth a second look.

        Each label is held against fits of the instant tier that were not shown it, held-out labels
        too; without embeddings or with one anomaly, against the ranking as it is, which knows most of
        them. See `amatch_widgets.query.second_look`.

        Parameters
        ----------
        n : int, >= 0

        Returns
        -------
        list of Candidate
            The most suspicious first; the reason says what the label is and how far off it seems.
        """
        if n < 0:
            raise ConfigError(f"n is {n}; it must be 0 or more.")
        ids, labels = self.source.ids, self.labels.current()
        chosen = []
        for i, doubt in self._doubts()[:n]:
            own = str(labels[ids[i]].label) if ids[i] in labels else "nothing"
            other = NORMAL if own == ANOMALY else ANOMALY
            chosen.append((i, f"second look: labelled {own}, {doubt:.2f} of the way to {other}"))
        return self._board.candidates(chosen)

    def _doubts(self) -> list[tuple[int, float]]:
        """Return the positions of all labelled images and how much is said against their labels."""
        labels = {
            self._index[i]: CLASSES.index(str(line.label))
            for i, line in self.labels.current().items()
            if i in self._index
        }
        margins, scores = self._tiers.held_out(labels), self.scores
        if not margins:
            margins = {i: float(scores[i]) for i in labels}
        at = np.array(list(labels), np.int64)
        doubts = contradiction(
            np.array([margins.get(i, np.nan) for i in labels]), np.array(list(labels.values())) == 1
        )
        order = np.argsort(-doubts, kind="stable")  # NaN last
        return [(int(at[k]), float(doubts[k])) for k in order]

    @property
    def remaining(self) -> Remaining:
        """How many anomalies are left to find, and what share was found, from the audits.

        Audits are the part of a "mixed" query or gallery page that is drawn at random. Images
        that were drawn and have no label are left out; ``n_audits_open`` counts them.
        """
        return self._audits.remaining(self._board.n_free)[0]

    @property
    def outlook(self) -> str:
        """What another page of 24 images is likely to bring, and what is left to find, in plain words."""
        return self.outlook_for(PAGE)

    def outlook_for(self, n: int) -> str:
        """Say what another page of `n` images is likely to bring, and what is left to find.

        Parameters
        ----------
        n : int, >= 1
            Images on the page; no more than are left.

        Returns
        -------
        str
        """
        left, n_open = self._audits.remaining(self._board.n_free)
        if not left.n_free:
            return str(left)
        said = str(left) if left.n_draws else _NO_AUDIT
        if n_open:
            said += f" {n_open:,} audited image{'s have' if n_open > 1 else ' has'} no label yet."
        return f"{self.discovery.outlook_for(min(n, left.n_free))} {said}"

    @property
    def n_audits_open(self) -> int:
        """How many images were drawn for an audit and have no label yet."""
        return self._audits.remaining(0)[1]

    def map(self, n: int = 5000, *, method: Method = "pca") -> ImageMap:
        """Lay images out in two dimensions, alike ones close together; takes a fraction of a second.

        Parameters
        ----------
        n : int, >= 0
            How many images are drawn at random; all labelled and starred ones and the 500 with the
            highest scores are there too.
        method : {"pca", "umap"}
            "umap" keeps neighbours together better, takes up to a minute, and needs the extra `umap`.

        Returns
        -------
        ImageMap
            Only images that have an embedding are on it.

        Raises
        ------
        NotTrainedError
            If there are no embeddings yet.
        ConfigError
            If `n` is negative or there is no such method.
        MissingExtraError
            If umap-learn is needed and not installed.
        """
        if n < 0:
            raise ConfigError(f"map() of n={n}: it must be 0 or more.")
        indices, xy = self._tiers.plane(of_note(self._board), n, method)
        xy.setflags(write=False)
        return ImageMap(tuple(self.source.ids[int(i)] for i in indices), indices, xy)

    def ranking(
        self, how: str = "highest", *, show: Show = "all", only: Filter | None = None, seed: int = 0
    ) -> npt.NDArray[np.int64]:
        """Return the positions of images in the source, in an order to look at.

        Parameters
        ----------
        how : {"highest", "lowest", "uncertain", "rising", "random", "recent", "second look"}
            "rising": what has gained most ranks, on a logarithmic scale, in the last 24 changes of labels
            or since the last cycle. "recent" shows labelled images only, the latest label first;
            "second look" too, the most suspicious label first (see `suspicious`).
        show : {"all", "unlabelled", "labelled", "anomaly", "normal", "starred", "problem"}
            "problem" are the images that cannot be read.
        only : Filter, optional
            What they must have besides.
        seed : int
            Of the random order.

        Returns
        -------
        ndarray of int64, shape (M,)
            Images without a score come last. Read-only.
        """
        only = Filter() if only is None else only
        if how == "second look":
            doubted = np.array([i for i, _ in self._doubts()], np.int64)
            return doubted[np.isin(doubted, self._board.ranking("recent", show, only, seed))]
        return self._board.ranking(how, show, only, seed)

    def rise(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return how all images have moved in the ranking, as the order "rising" sees it.

        Returns
        -------
        before, now : ndarray of int64, shape (N,)
            Ranks, from 1; 0 for an image without a score. Read-only.
        """
        return self._board.rise()

    def places(self, image_ids: Iterable[str]) -> npt.NDArray[np.int64]:
        """Return the positions of images in the source, in this order; unknown ids are left out."""
        return self._board.places(image_ids)

    def find(self, contains: str) -> npt.NDArray[np.int64]:
        """Return the positions of all images whose id contains a text, upper and lower case alike."""
        return self._board.find(contains)

    def thumbnail(self, image_id: str, side: int = _THUMBNAIL_PX, rendering: Rendering = _AS_IT_IS) -> bytes:
        """Return a small JPEG of what the model sees of an image, its longer side at most `side` pixels.

        Raises
        ------
        ImageReadError
            If the image cannot be read, or not rendered so.
        LabelError
            If there is no such id.
        """
        self._check_ids([image_id])
        return self.pictures.thumbnail(image_id, side, rendering)

    def cutout(self, image_id: str, *, rendering: Rendering = _AS_IT_IS, side: int | None = None) -> bytes:
        """Return a picture of the whole image: PNG up to a million pixels, fine JPEG above.

        Parameters
        ----------
        image_id : str
        rendering : Rendering, optional
            How it is to look.
        side : int, >= 1, optional
            Most pixels of the longer side; by default none are left out.

        Raises
        ------
        ImageReadError
            If the image cannot be read, or not rendered so.
        LabelError
            If there is no such id.
        """
        self._check_ids([image_id])
        return self.pictures.cutout(image_id, rendering, side)

    def explain(self, image_id: str, *, coarse: bool = False) -> Explanation:
        """Show which parts of an image the instant tier's score rests on, by covering one after another.

        An image of an archive is explained by the labels of now, which may be more than its score rests on.

        It takes 171 copies of the image, each in several orientations: seconds on a CPU. A running job
        waits for it between two of its steps, and goes on as if nothing had been; one that is paused
        stays so.

        Parameters
        ----------
        image_id : str
        coarse : bool
            Cover large parts alone, which takes 50 copies. Where the large parts count is then right,
            and smaller ones are not told apart.

        Returns
        -------
        Explanation
            A map of what the logit loses without each part. The trained model is not asked, also
            where it takes part in the ranking.

        Raises
        ------
        LabelError
            If there is no such id.
        NotTrainedError
            If there are no embeddings yet, or no anomaly is labelled.
        ImageReadError
            If the image cannot be read.
        StateError
            If the session is closed, or the weights of the network have changed meanwhile.
        """
        self._check_ids([image_id])
        self._tiers.wait(_PATIENCE_S)
        return self._explain(image_id, coarse=coarse)

    def top(self, n: int = 100) -> pd.DataFrame:
        """Return the `n` highest scores as a table: id, score, rank, label, tags, note, starred, and more.

        The other columns are ra and dec (ICRS, degrees, NaN where no position is known), labelled_by and
        labelled_at, and rank_instant and rank_deep: the ranks by each tier alone, 0 where it has no score.

        Raises
        ------
        NotTrainedError
            If there are no scores yet.
        """
        return self._board.shortlist(self._board.choose(n))
