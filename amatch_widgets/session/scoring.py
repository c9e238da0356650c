"""Score images that are not the session's own, however many, with what ranks in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from amatch_widgets.archive.cluster import choose_precision, score_on_cluster
from amatch_widgets.archive.devices import Together, devices_of
from amatch_widgets.archive.first import score_first
from amatch_widgets.archive.parts import Parts
from amatch_widgets.archive.run import part_rows_for, score_missing
from amatch_widgets.errors import NotTrainedError, SourceError
from amatch_widgets.events import ArchiveBegun, Event, Message
from amatch_widgets.images.pair import Pair
from amatch_widgets.images.stream import reading_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from amatch_widgets.archive.ranker import Model, Ranker
    from amatch_widgets.images.remote import Remote
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.learn.backbone import Classifier
    from amatch_widgets.learn.inference import Precision
    from amatch_widgets.learn.start import Start
    from amatch_widgets.score.anomalymatch import ForeignModel
    from amatch_widgets.session.archives import Archives
    from amatch_widgets.session.imported import ImportedModel
    from amatch_widgets.session.manifest import Manifest
    from amatch_widgets.session.scoreboard import Scoreboard

__all__ = ["Scoring"]


class Scoring:
    """Score archives with what ranks in a session.

    Parameters
    ----------
    archives : Archives
        Told of each.
    manifest : callable
        Returns the manifest as it is now.
    board : Scoreboard
    begin : callable
        Returns the instant tier's ranking as the start of a training, or None.
    trained : callable
        Returns the trained model.
    imported : ImportedModel
        Stands for the trained model, where that was trained elsewhere.
    catch_up : callable
        Lets the instant tier have the vectors of all labelled images.

    Notes
    -----
    Thread safety: `job` and `ranker` belong on the worker's thread, `check` may be called from any.
    """

    def __init__(
        self,
        archives: Archives,
        *,
        manifest: Callable[[], Manifest],
        board: Scoreboard,
        begin: Callable[[], Start | None],
        trained: Callable[[], Classifier],
        imported: ImportedModel,
        catch_up: Callable[[], None],
    ) -> None:
        self._archives, self._manifest, self._board = archives, manifest, board
        self._begin, self._trained, self._catch_up = begin, trained, catch_up
        self._imported = imported

    def check(self, archive: ImageSource) -> None:
        """Refuse images that the model was not made for, before anything is done.

        Raises
        ------
        SourceError
            If they have other bands or another number of channels.
        NotTrainedError
            If nothing ranks yet, or only the scores of a model that ranks are here.
        """
        ranked_by = self._board.ranked_by
        if ranked_by in (None, "novelty"):
            raise NotTrainedError(
                "Nothing ranks yet that could score other images. Label an anomaly and make the embeddings "
                "(session.embed()), or train: session.train()."
            )
        self._manifest().image.check(archive)
        if ranked_by in ("deep", "both") and self._board.origin:
            wanted = self._imported.facts(self._board.origin).image
            if not wanted.fits(archive.channels):
                raise SourceError(
                    f"The images of {archive.name!r} have {archive.channels} channels, and the "
                    f"{self._board.deep_name} has learnt from {wanted.channels}. Open it with the same bands."
                )

    def job(self, archive: ImageSource, path: Path | Remote, client: Any = None) -> Iterator[Event]:
        """Score the parts of an archive that are not there yet, by what ranks now."""
        self._catch_up()
        ranker = self.ranker()
        parts = Parts.create(
            path,
            fingerprint=archive.fingerprint(),
            n_images=len(archive),
            spec=archive.spec(),
            part_rows=part_rows_for(len(archive), getattr(archive, "chunk", 1)),
        )
        yield ArchiveBegun(self._archives.note(archive, path).name)
        config = self._manifest().train
        device, batch_size = config.device, config.score_batch
        cycle = parts.begun(ranker.key)
        if cycle is None:
            # Once, by who will score: the rows of a cycle are of one precision, whoever makes them.
            if client is None:
                precision = ranker.choose_precision(device)
            else:
                precision = yield from choose_precision(client, ranker, len(archive), device=device)
            details = {"image": ranker.image.to_dict(), "imported": ranker.imported}
            cycle = parts.begin(ranker.key, ranker.note, precision, details)
        ranker = replace(ranker, precision=cast("Precision", cycle.precision))
        if parts.missing(cycle):
            if client is None:
                score = Together([ranker.ready(name) for name in devices_of(device)])
                how: Any = archive, ranker.image, score, parts, cycle
                yield from score_first(*how, batch_size=batch_size, threads=reading_threads())
                yield from score_missing(*how, batch_size=batch_size, threads=reading_threads())
            else:
                yield from score_on_cluster(
                    client, archive, ranker, parts, cycle, device=device, batch_size=batch_size
                )
        n_problems = parts.n_problems(cycle)
        if n_problems:
            yield Message(
                "warning",
                f"{n_problems:,} of {len(archive):,} images of {archive.name!r} could not be read and have "
                "no score; they are listed as problems.",
            )

    def ranker(self) -> Ranker:
        """Return what ranks now, to be used on any images; on the worker's thread.

        Raises
        ------
        NotTrainedError
            If nothing does.
        """
        from amatch_widgets.archive.ranker import Ranker  # noqa: PLC0415 (imports scikit-learn)

        board, image = self._board, self._manifest().image
        ranked_by, origin = board.ranked_by, board.origin
        foreign = self._imported.read(origin) if origin and ranked_by in ("deep", "both") else None
        how: dict[str, Any] = {"image": image, "note": board.note}
        if foreign is not None:
            how["image"] = foreign.image if ranked_by == "deep" else Pair(image, foreign.image)
            how["imported"] = f"{foreign.origin}, sha256 {foreign.sha256}"
            how["note"] += f" Its file: SHA-256 {foreign.sha256[:16]}…, {foreign.image.summary}."
        if ranked_by == "deep":
            return Ranker(ranked_by="deep", deep=self._deep(foreign), **how)
        start = self._begin() if ranked_by in ("instant", "both") else None
        if start is None:
            raise NotTrainedError("Nothing ranks any more that could score other images: label an anomaly.")
        instant = self._instant(start)
        blended = board.blended
        if ranked_by == "instant" or blended is None:
            return Ranker(ranked_by="instant", image=image, note=board.note, instant=instant)
        ours, theirs, weight = blended
        return Ranker.blended((instant, ours), (self._deep(foreign), theirs), weight, **how)

    def _instant(self, start: Start) -> Model:
        from amatch_widgets.archive.ranker import Model  # noqa: PLC0415 (imports scikit-learn)
        from amatch_widgets.learn.backbone import build_classifier  # noqa: PLC0415 (imports torch)
        from amatch_widgets.learn.start import VectorClassifier  # noqa: PLC0415 (imports torch)

        config = self._manifest().train
        base = build_classifier(
            config.backbone,
            channels=self._manifest().image.channels,
            weights=config.weights,
            seed=config.seed,
        )
        model = VectorClassifier(base, start.shape)
        model.begin(start)
        return Model.of(model, config.backbone)

    def _deep(self, foreign: ForeignModel | None) -> Model:
        from amatch_widgets.archive.ranker import Model  # noqa: PLC0415 (imports scikit-learn)

        if foreign is not None:
            return Model.of(foreign.classifier, foreign.backbone)
        return Model.of(self._trained(), self._manifest().train.backbone)
