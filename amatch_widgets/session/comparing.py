"""Which images of an archive look like others, among those of its images that are embedded."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.archive.run import Rate
from amatch_widgets.archive.vectors import VectorFile
from amatch_widgets.errors import NotTrainedError, SourceError
from amatch_widgets.events import EmbeddingProgress, Event, Message, ProblemFound
from amatch_widgets.images.stream import reading_threads, spans, stream
from amatch_widgets.query.neighbours import near, similar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.archive.order import Row
    from amatch_widgets.archive.vectors import Embedded
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.images.stream import Batch
    from amatch_widgets.session.archive import Archive
    from amatch_widgets.session.embedder import ReadyEmbedder
    from amatch_widgets.session.manifest import Manifest
    from amatch_widgets.session.tiers import Space

__all__ = ["N_HIGHEST", "Comparing"]

N_HIGHEST = 100_000
"""Images of an archive that are embedded unless another number is asked for: 100 MB."""
_FORMAT = 1
# The highest first, as one looks at these. Few steps: each may have to read the same chunks of the archive.
_STEPS = (1_000, 10_000)
_LOST = 1_000  # images in a row that cannot be read: then it is the volume, and not the images


class Comparing:
    """Embed the highest-scored images of archives, and find those that look like others.

    The vectors of 10^8 images take 100 GB, and more than a week on two cores to make: those of the highest
    scores are made, in the space of the session's own embeddings.

    Parameters
    ----------
    roots : sequence of Path
        Folders that vectors may be kept in; other sessions on the same images use them too.
    manifest : callable
        Returns the manifest as it is now.
    space : callable
        Returns what the session's embeddings were made with; None before there are any.
    embedder : ReadyEmbedder
    vectors : callable
        Returns the vectors, float16 of shape (N, D), of images that are not among those kept here, by
        their names in the session.

    Notes
    -----
    Thread safety: ``_covered`` is changed by single assignments. `job` belongs on the worker's thread, all
    else may be called from any other.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        manifest: Callable[[], Manifest],
        space: Callable[[], Space | None],
        embedder: ReadyEmbedder,
        vectors: Callable[[Sequence[str]], npt.NDArray[np.float16]],
    ) -> None:
        self._roots, self._manifest, self._space = roots, manifest, space
        self._embedder, self._vectors = embedder, vectors
        self._covered: dict[str, tuple[object, ...]] = {}  # what was looked through to its end, by archive

    def check(self, archive: Archive) -> None:
        """Refuse what cannot be embedded, before anything is done.

        Raises
        ------
        NotTrainedError
            If the session's own images have no embeddings, or nothing of the archive is scored.
        """
        self._known_space()
        if not archive.progress().cycle:
            raise NotTrainedError(
                f"Nothing of {archive.title!r} is scored yet, and its highest-scored images are those that "
                "are embedded. Score it first: session.score()."
            )

    def job(self, archive: Archive, n: int) -> Iterator[Event]:
        """Embed those of the `n` highest images that have no vector yet; what was made is kept at any end."""
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

        space, source, parts = self._known_space(), archive.source, archive.parts
        self._manifest().image.check(source)
        file, projection = self._file(archive, space), Projection.from_arrays(space.projection)
        wanted = parts.highest(archive.scores.cycle, n)
        missing = wanted[file.read().rows(wanted) < 0]
        n_done, rate = len(wanted) - len(missing), Rate()
        cover = self._standing(archive) if n >= min(N_HIGHEST, len(archive)) else ()
        if not len(missing):
            self._covered[archive.name] = cover
            yield EmbeddingProgress(n_done, n_done, 0.0, 0.0, archive.title)
            return
        embedder, reasons, n_lost = self._embedder(space.key), dict[int, str](), 0
        with contextlib.ExitStack() as stack:
            add = stack.enter_context(file.adding(len(missing)))
            missing = wanted[file.read().rows(wanted) < 0]  # another session may have added some just now
            batches = stack.enter_context(contextlib.closing(self._read(source, missing)))
            for batch in batches:
                if len(batch.indices):
                    add(batch.indices, projection.apply(embedder.raw(batch.images)))
                reasons |= batch.problems
                n_lost = 0 if len(batch.indices) else n_lost + len(batch.problems)
                if n_lost >= _LOST or len(reasons) == len(wanted):
                    raise _gone(archive, reasons)
                for index, reason in batch.problems.items():
                    yield ProblemFound(archive.id_of(source.ids[index]), reason)
                n_more = len(batch.indices) + len(batch.problems)
                n_done += n_more
                per_s = rate.add(n_more)
                left = (len(wanted) - n_done) / per_s
                yield EmbeddingProgress(n_done, len(wanted), per_s, left, archive.title)
        self._covered[archive.name] = cover
        if reasons:
            index, reason = next(iter(reasons.items()))
            yield Message(
                "warning",
                f"{len(reasons):,} of {len(wanted):,} images of {archive.title!r} could not be read and have "
                f"no embedding; the first, {source.ids[index]!r}: {reason}. Embed again to try them anew.",
            )

    def _read(self, source: ImageSource, indices: npt.NDArray[np.int64]) -> Generator[Batch]:
        """Read and prepare images, the first of these first."""
        chunk = getattr(source, "chunk", 1)
        cut = (span for step in np.split(indices, _STEPS) for span in spans(step, chunk))
        manifest = self._manifest()
        return stream(
            source,
            manifest.image,
            cut,
            batch_size=manifest.train.score_batch,
            threads=reading_threads(),
        )

    def may_embed(self, archive: Archive) -> bool:
        """Whether there may be something to do for `job`; see `Session.may_embed`."""
        return self._covered.get(archive.name) != self._standing(archive)

    def embedded(self, archive: Archive) -> Embedded:
        """Return which images of an archive have a vector now.

        Raises
        ------
        NotTrainedError
            If the session's own images have no embeddings.
        """
        return self._file(archive, self._known_space()).read()

    def similar(self, archive: Archive, image_ids: Sequence[str], k: int) -> list[tuple[Row, float]]:
        """Return the `k` embedded images of an archive most like these, and the cosines.

        Raises
        ------
        NotTrainedError
            If no image of the archive is embedded.
        """
        there = self.embedded(archive)
        if not len(there):
            raise NotTrainedError(
                f"No image of {archive.title!r} is embedded yet. Embed those with the highest scores: "
                f"session.embed({archive.title!r})."
            )
        places = archive.positions(i for i in image_ids if archive.owns(i))
        rows = there.rows(list(places.values()))
        known = {i for i, row in zip(places, rows, strict=True) if row >= 0}
        others = [i for i in image_ids if i not in known]
        found, cosines = similar(
            there.vectors,
            rows[rows >= 0],
            k,
            is_usable=np.ones(len(there), bool),
            others=self._vectors(others) if others else None,
        )
        indices = there.indices[found].tolist()
        images = archive.rows(indices)
        return [(images[i], float(c)) for i, c in zip(indices, cosines, strict=True) if i in images]

    def twins(self, archive: Archive, image_ids: Sequence[str], least: float) -> dict[str, list[str]]:
        """Return the embedded images all but the same as each of these of an archive; see `Session.twins`."""
        if self._space() is None:
            return {}
        there, places = self.embedded(archive), archive.positions(image_ids)
        rows = there.rows(list(places.values()))
        wanted = [(i, int(row)) for i, row in zip(places, rows, strict=True) if row >= 0]
        if not wanted:
            return {}
        found = near(
            there.vectors, [row for _, row in wanted], is_usable=np.ones(len(there), bool), least=least
        )
        images = archive.rows({int(there.indices[row]) for like in found for row in like})
        ids = {i: archive.id_of(row.id) for i, row in images.items()}
        return {
            i: [ids[k] for k in there.indices[like].tolist() if k in ids]
            for (i, _), like in zip(wanted, found, strict=True)
            if len(like)
        }

    def _standing(self, archive: Archive) -> tuple[object, ...]:
        """Return what changes when other images are the highest, or are embedded otherwise."""
        progress = archive.progress()
        return self._known_space().digest, progress.cycle, progress.n_done, progress.has_first

    def _known_space(self) -> Space:
        space = self._space()
        if space is None:
            raise NotTrainedError(
                "The session's own images have no embeddings yet, in whose space those of an archive are "
                "compared. Make them first: session.embed()."
            )
        return space

    def _file(self, archive: Archive, space: Space) -> VectorFile:
        key = {
            "format": _FORMAT,
            "archive": archive.fingerprint,
            "n_images": len(archive),
            "space": space.digest,
        }
        return VectorFile(self._roots, key, n_images=len(archive), dims=space.dims)


def _gone(archive: Archive, reasons: dict[int, str]) -> SourceError:
    index, reason = next(reversed(reasons.items()))
    return SourceError(
        f"None of the last images of {archive.title!r} could be read; the last, at position {index:,}: "
        f"{reason}. What was embedded until here is kept. Look whether the images are still there, then "
        "embed again: it goes on from here."
    )
