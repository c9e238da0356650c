"""The part of a session that writes what was found for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from amatch_widgets.errors import ConfigError, LabelError, SourceError
from amatch_widgets.images.render import Rendering
from amatch_widgets.session.cutouts import Cutouts, write_cutouts
from amatch_widgets.session.export import check_ending, sky_of, table_of, write_shortlist
from amatch_widgets.session.history import utc_now
from amatch_widgets.session.parts import Parts
from amatch_widgets.session.provenance import Provenance, model_hash, software
from amatch_widgets.session.samp import Hub

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

__all__ = ["Exporting"]

_AS_IT_IS = Rendering()
_TRIES = 3


class Exporting(Parts):
    """Tables and files of a `Session` for other programs."""

    def export(self, path: str | Path, n: int | None = None, *, archive: str | None = None) -> Path:
        """Write a shortlist: the `n` highest scores, or all labelled images by score.

        The columns are those of `top`, and `model`, a digest of the weights that ranked. Every format but CSV
        says too what session and images it is of, what ranked them, and when and by which version it was
        written.

        Parameters
        ----------
        path : path
            Its ending is the format: ``.csv``, ``.parquet``, ``.vot`` or ``.xml`` (VOTable), ``.fits``
            (table), or ``.reg`` (regions for DS9: the images that have a position, with their labels). One
            that exists is replaced, but for CSV only if it was written here.
        n : int, >= 1, optional
        archive : str, optional
            Name of an archive, whose images are written in place of the session's own; see `archives`. Their
            ids are those that the archive has for them.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        ConfigError
            If there is no such format, or no image has a position for a ``.reg``.
        NotTrainedError
            If the highest scores are asked for before there are any.
        MissingExtraError
            If it is a VOTable or FITS and astropy is not installed.
        WorkspaceError
            If it cannot be written, or is the label table that was imported: that is never
            changed.
        LabelError
            If there is no such archive.
        """
        path = Path(path).expanduser()
        check_ending(path)
        table, provenance = self._shortlist(n) if archive is None else self._of_archive(archive, n)
        return write_shortlist(table, path, provenance, protected=self._tables)

    def export_cutouts(
        self,
        folder: str | Path,
        n: int | None = None,
        *,
        image_ids: Sequence[str] | None = None,
        rendering: Rendering = _AS_IT_IS,
        side: int | None = None,
    ) -> Cutouts:
        """Write images as PNG files: the `n` highest scores, these ids, or all labelled images by score.

        The files are numbered in this order, and named by as much of their ids as every system can hold. The
        table ``cutouts.csv`` beside them says which is which, with the columns of `top`.

        Parameters
        ----------
        folder : path
            Made if it does not exist; nothing may be in it, as nothing is written over.
        n : int, >= 0, optional
        image_ids : sequence of str, optional
            In place of `n`.
        rendering : Rendering, optional
            How they are to look.
        side : int, >= 1, optional
            Most pixels of the longer side; by default none are left out.

        Returns
        -------
        Cutouts
            How many were written, and which could not be read.

        Raises
        ------
        ConfigError
            If both `n` and `image_ids` are given, or a number is out of its range.
        LabelError
            If there is no such id.
        NotTrainedError
            If the highest scores are asked for before there are any.
        WorkspaceError
            If something is in the folder, or it cannot be written.
        """
        if n is not None and image_ids is not None:
            raise ConfigError("export_cutouts() of n= and image_ids=: leave one of them out.")
        if side is not None and side < 1:
            raise ConfigError(f"export_cutouts(side={side!r}): it must be 1 or more.")
        if image_ids is None:
            chosen = self._board.choose(n)
        else:
            wanted = list(dict.fromkeys([image_ids] if isinstance(image_ids, str) else image_ids))
            self._check_own_ids(wanted, " Nothing was written.")
            chosen = self._board.places(wanted)
        ids = [self.source.ids[int(i)] for i in chosen]
        table = self._board.shortlist(chosen)
        pictures = self.pictures.cutouts(ids, rendering, side)
        return write_cutouts(Path(folder).expanduser(), table, ids, pictures)

    def send(self, n: int | None = 100, *, to: str | None = None) -> list[str]:
        """Show the `n` highest scores in other programs on this machine, by SAMP: TOPCAT, Aladin and others.

        The table is that of `export`, a VOTable in the session folder, ``sent.vot``, which the programs read.

        Parameters
        ----------
        n : int, >= 1, optional
            None: all labelled images by score.
        to : str, optional
            Name of the only program that is to show it, e.g. "TOPCAT".

        Returns
        -------
        list of str
            The names of the programs.

        Raises
        ------
        StateError
            If no hub runs or answers within seconds, or no such program is connected to it.
        NotTrainedError
            If the highest scores are asked for before there are any.
        MissingExtraError
            If astropy is not installed.
        WorkspaceError
            If the table cannot be written.
        """
        with Hub() as hub:
            path = self.export(self.path / "sent.vot", n)
            name = f"{self.path.name}, {'labels' if n is None else f'best {n}'}"
            values = {"url": path.as_uri(), "table-id": f"amatch-{self.path.name}", "name": name}
            return hub.tell("table.load.votable", values, to=to)

    def point_at(self, image_id: str, *, to: str | None = None) -> list[str]:
        """Show the place of an image on the sky in other programs on this machine, by SAMP, as in Aladin.

        Parameters
        ----------
        image_id : str
        to : str, optional
            Name of the only program that is to show it, e.g. "Aladin".

        Returns
        -------
        list of str
            The names of the programs.

        Raises
        ------
        LabelError
            If there is no such id, or where the image is is not known.
        StateError
            As for `send`.
        """
        self._check_ids([image_id])
        position = self.pictures.position(image_id)
        if position is None:
            raise LabelError(
                f"Where {image_id!r} is on the sky is not known, so that no program can show it."
            )
        ra, dec = position
        with Hub() as hub:
            return hub.tell("coord.pointAt.sky", {"ra": f"{ra:.8f}", "dec": f"{dec:.8f}"}, to=to)

    def _shortlist(self, n: int | None) -> tuple[pd.DataFrame, Provenance]:
        """Return a table and what ranked it; labels that come meanwhile make both anew, a few times."""
        for _ in range(_TRIES):
            version = self._board.version
            table, provenance = self._board.shortlist(self._board.choose(n)), self._provenance()
            found = table.assign(model=provenance.model), provenance
            if self._board.version == version:
                break
        return found

    def _of_archive(self, name: str, n: int | None) -> tuple[pd.DataFrame, Provenance]:
        archive = self._archives.named(name)
        if n is not None and n < 0:
            raise ConfigError(f"n is {n}; it must be 0 or more.")
        found, scores = archive.order("highest", show="labelled" if n is None else "all"), archive.scores
        rows = found.rows(0, len(found) if n is None else n)
        values = np.array([np.nan if row.score is None else row.score for row in rows], np.float32)
        ranks = np.zeros(len(rows), np.int64)
        has = np.isfinite(values)
        if has.any():
            ranks[has] = scores.n_above(values[has]) + 1 if n is None else np.arange(1, len(rows) + 1)
        try:
            sky = sky_of(archive.source, (row.index for row in rows))
        except SourceError:  # the images are away; what is known of them is not
            sky = np.full((len(rows), 2), np.nan)
        ids = [row.id for row in rows]
        table = table_of(ids, values, ranks, self.labels.history(), sky=sky, named=archive.id_of)
        return table, Provenance(
            software=software(),
            date=utc_now(),
            session=self.path.name,
            source=archive.title,
            fingerprint=archive.fingerprint,
            n_images=len(archive),
            ranked_by="",
            ranking=scores.cycle.note,
            model=scores.cycle.key,
        )

    def _provenance(self) -> Provenance:
        board = self._board
        cycle, step, weight = board.deep_model or (0, None, None)
        checkpoint = None if step is None else self._workspace.checkpoint(cycle, step)
        if board.origin:
            checkpoint = self._imported.path_of(board.origin)
        return Provenance(
            software=software(),
            date=utc_now(),
            session=self.path.name,
            source=self.source.name,
            fingerprint=self.source.fingerprint(),
            n_images=len(self.source),
            ranked_by=board.ranked_by or "",
            ranking=self._tiers.note,
            model=model_hash(board.ranked_by, self._tiers.ranking, checkpoint, weight),
        )
