"""The part of a session that finds images that look alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ConfigError, LabelError
from amatch_widgets.query.neighbours import near
from amatch_widgets.query.strategies import Candidate
from amatch_widgets.session.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

__all__ = ["Likeness"]


class Likeness(Parts):
    """Images like others, and twins, of a `Session`."""

    def similar(
        self,
        image_ids: str | Sequence[str],
        k: int = 24,
        *,
        among: Iterable[str] | None = None,
        archive: str = "",
    ) -> list[Candidate]:
        """Return the images most like one, or like several taken together; labelled ones too.

        Parameters
        ----------
        image_ids : str or sequence of str
            Also of archives: these are read and embedded for it, between two steps of a running job.
        k : int, >= 0
        among : iterable of str, optional
            Ids of the images to choose from; by default all of the session's own.
        archive : str, optional
            Name or title of an archive: its images are chosen from instead, as far as they are embedded;
            see `embed` and `n_embedded`.

        Returns
        -------
        list of Candidate
            By cosine similarity of the embeddings, the most similar first.

        Raises
        ------
        LabelError
            If an id or the archive is unknown, no id is given, or `k` is negative.
        ConfigError
            If both `among` and `archive` are given.
        NotTrainedError
            If there are no embeddings yet, none of these images, or none of the archive's.
        ImageReadError
            If an image of an archive cannot be read.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        self._check_ids(wanted)
        if not wanted or k < 0:
            raise LabelError(
                f"similar() of {len(wanted)} images with k={k}: name at least one image, and k of 0 or more."
            )
        if archive:
            if among is not None:
                raise ConfigError("similar(among=..., archive=...): give one of them.")
            found_there = self._archives.named(archive)
            return [
                Candidate(found_there.id_of(row.id), row.score, _like(cosine))
                for row, cosine in self._comparing.similar(found_there, wanted, k)
            ]
        among = None if among is None else list(among)
        self._check_own_ids(among or ())
        elsewhere = [i for i in wanted if i not in self._index]
        found, cosines = self._tiers.similar(
            np.array([self._index[i] for i in wanted if i in self._index], np.int64),
            k,
            others=self._teaching.vectors(elsewhere) if elsewhere else None,
            among=None if among is None else np.array([self._index[i] for i in among], np.int64),
        )
        ids, scores = self.source.ids, self._board.scores
        return [
            Candidate(ids[i], float(scores[i]) if np.isfinite(scores[i]) else None, _like(cosine))
            for i, cosine in zip(found, cosines, strict=True)
        ]

    def _vectors(self, image_ids: Sequence[str]) -> npt.NDArray[np.float16]:
        """Return the vectors of images, those of archives made for it, the session's own first."""
        own = np.array([self._index[i] for i in image_ids if i in self._index], np.int64)
        elsewhere = [i for i in image_ids if i not in self._index]
        found = [self._tiers.vectors(own)] if len(own) else []
        return np.concatenate([*found, *([self._teaching.vectors(elsewhere)] if elsewhere else [])])

    def n_embedded(self, archive: str) -> int:
        """Return how many images of an archive are embedded: among them `similar` and `twins` look.

        Raises
        ------
        LabelError
            If there is no such archive.
        NotTrainedError
            If the session's own images have no embeddings.
        """
        return len(self._comparing.embedded(self._archives.named(archive)))

    def may_embed(self, archive: str) -> bool:
        """Return whether `embed` of an archive may have something to do.

        It has not, where it has come to its end and there are no other scores since. What was embedded
        before this session was opened is not known here, and is found by `embed` in no time.

        Raises
        ------
        LabelError
            If there is no such archive.
        NotTrainedError
            If the session's own images have no embeddings.
        """
        return self._comparing.may_embed(self._archives.named(archive))

    def twins(self, image_ids: str | Sequence[str], *, least: float = 0.85) -> dict[str, list[str]]:
        """Return the images that look all but the same as each of these: copies, shifted cutouts.

        Those of an image of an archive are looked for in that archive, as far as it is embedded, see `embed`.

        Parameters
        ----------
        image_ids : str or sequence of str
        least : float, in (0, 1]
            Cosine of the embeddings from which on two images are twins. At 0.85, copies moved by a 64th of
            their width were found in 91 % of galaxies and all photographs, and none of 2,400 images
            was taken for another (benchmarks/twins.py).

        Returns
        -------
        dict of str to list of str
            Only of images that have any; empty before there are embeddings.

        Raises
        ------
        LabelError
            If an id is unknown.
        ConfigError
            If `least` is out of its range.
        """
        wanted = [image_ids] if isinstance(image_ids, str) else list(image_ids)
        self._check_ids(wanted)
        if not 0 < least <= 1:
            raise ConfigError(f"twins(least={least!r}): allowed is a number above 0 and at most 1.")
        own = [i for i in wanted if i in self._index]
        twins = self._own_twins(own, least)
        for archive in self._archives.known().values():
            of_it = [i for i in wanted if i not in self._index and archive.owns(i)]
            if of_it:
                twins |= self._comparing.twins(archive, of_it, least)
        return {i: twins[i] for i in wanted if i in twins}

    def _own_twins(self, image_ids: Sequence[str], least: float) -> dict[str, list[str]]:
        embeddings = self._tiers.embeddings
        if embeddings is None or not image_ids:
            return {}
        vectors, is_done = embeddings
        found = near(vectors, [self._index[i] for i in image_ids], is_usable=is_done, least=least)
        ids = self.source.ids
        return {i: [ids[int(k)] for k in like] for i, like in zip(image_ids, found, strict=True) if len(like)}


def _like(cosine: float) -> str:
    return f"similar: cosine {cosine:.2f}"
