"""How the model sees the images: what they are, and bands, stretch and size tried out on a few of them."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from traitlets import Bool, Dict, Int, List, Unicode

from amatch_widgets.errors import AmatchError, ImageReadError
from amatch_widgets.events import Event, ImagesPrepared, StateChanged, StepDone
from amatch_widgets.images.preprocess import Preprocess, as_rgb
from amatch_widgets.images.render import encode_picture
from amatch_widgets.images.stretch import limits_of
from amatch_widgets.widgets.newest import Newest
from amatch_widgets.widgets.part import Part
from amatch_widgets.widgets.thumbnails import data_url
from amatch_widgets.widgets.view import Desk, handler, in_words

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from amatch_widgets.session import Session

__all__ = ["Preview"]

_log = logging.getLogger(__name__)
_SHOWN, _ANOMALIES = 14, 4  # images; of them, at most, labelled anomalies
_EDGES = (0.5, 99.5)  # percentiles over the sample: where fixed limits begin


class Preview(Part):
    """What the images are, and how the model sees them: tried out on a few before it is used.

    Beside some labelled anomalies the sample is drawn at random. Images are read in the background, once,
    and only while somebody looks; their pictures go to the browser as messages and are in no trait.

    Thread safety: all traits and attributes are guarded by ``desk.lock``, but for ``_read``, which belongs
    to the background thread.

    Parameters
    ----------
    session : Session
        Whose images are shown.
    desk : Desk, optional
        Shared with the other parts of the same dashboard; without one the preview stands alone.
    """

    template_file = (__file__, "preview.vue")

    facts: Any = List().tag(sync=True)
    bands: Any = List().tag(sync=True)
    draft = Dict().tag(sync=True)
    chosen: Any = List(None, allow_none=True).tag(sync=True)  # bands by their places; None: as they are
    mixture = Unicode("").tag(sync=True)  # where weights were given, which only code can do
    used = Unicode("").tag(sync=True)
    is_changed = Bool(False).tag(sync=True)
    is_trained = Bool(False).tag(sync=True)
    is_busy = Bool(False).tag(sync=True)
    n_images = Int(0).tag(sync=True)
    number = Int(0).tag(sync=True)  # of the request: what arrives for an older one is not shown
    tiles: Any = List().tag(sync=True)  # [id, label]

    def __init__(self, session: Session, desk: Desk | None = None) -> None:
        self._draft = session.image
        self._views: set[str] = set()  # of the browser, that look
        self._numbers = itertools.count(1)
        self._seed = 0
        self._read: dict[str, NDArray[Any] | ImageReadError] = {}
        self._work = Newest("amatch-preview")
        super().__init__(session, desk)
        with self.desk.lock:
            source = session.source
            self.bands = [*(session.image.bands or map(str, range(1, source.channels + 1)))]
            self.n_images = len(source)
            self._show_draft()
            self._show_state()

    def try_out(self, image: Preprocess) -> None:
        """Show the sample as it would be with these options; nothing is used yet.

        Raises
        ------
        ConfigError, SourceError
            If they do not go with the images.
        """
        with self.desk.lock, self.hold_sync():
            self._draft = image.fitted(self.session.source)
            self._show_draft()
            self._draw()

    def apply(self, events: Iterable[Event]) -> None:
        """Show whether another preparation can be used now."""
        kinds = {type(event) for event in events}
        with self.desk.lock, self.hold_sync():
            if ImagesPrepared in kinds:
                self._show_draft()
            if kinds & {ImagesPrepared, StateChanged, StepDone}:
                self._show_state()

    def show_all(self) -> None:
        """Bring the preview up to date."""
        with self.desk.lock, self.hold_sync():
            self._show_draft()
            self._show_state()

    def close(self) -> None:
        """End the background work and take the preview off the screen."""
        work = getattr(self, "_work", None)
        if work is not None:
            work.close()
        super().close()

    # What the browser asks for.

    @handler("Showing the preview")
    def vue_do_want(self, data: dict[str, Any]) -> None:
        """Show the sample to one more view."""
        self._views.add(str(data.get("view")))
        self._draw()

    @handler("Closing the preview")
    def vue_do_leave(self, data: dict[str, Any]) -> None:
        """Free the images when nobody looks any more."""
        self._views.discard(str(data.get("view")))
        if not self._views:
            self._work.clear()
            self._work.do("draw", self._read.clear)

    @handler("Trying this out")
    def vue_do_try(self, data: dict[str, Any]) -> None:
        """Change some options of the draft."""
        options = {**self._draft.to_dict(), **{key: value for key, value in data.items() if key != "chosen"}}
        try:
            if "chosen" in data:
                options |= {"mix": self._matrix(data["chosen"]), "channels": 0}
            if options["limits"] == "fixed" and options["low"] is None and options["high"] is None:
                self._work.do("limits", self._measure_limits)
            else:
                self.try_out(Preprocess.from_dict(options))
        except AmatchError:
            self.send({"method": "refused", "args": []})  # the fields go back to what holds
            raise

    @handler("Showing other images")
    def vue_do_others(self, _data: dict[str, Any]) -> None:
        """Draw another sample."""
        self._seed += 1
        self._draw()

    @handler("Taking the changes back")
    def vue_do_revert(self, _data: dict[str, Any]) -> None:
        """Show what is in use."""
        self.try_out(self.session.image)

    @handler("Preparing the images")
    def vue_do_use(self, _data: dict[str, Any]) -> None:
        """Let the model see the images so from now on."""
        self.session.prepare(self._draft)

    # How it is shown; the lock is held.

    def _matrix(self, chosen: list[int] | None) -> list[list[float]] | None:
        n = len(self.bands)
        return None if chosen is None else [[float(k == int(band)) for k in range(n)] for band in chosen]

    def _show_draft(self) -> None:
        draft = self._draft
        self.draft = draft.to_dict() | {"mix": None}
        rows: list[list[float]] | None = draft.to_dict()["mix"]
        is_selection = rows is not None and all(sorted(row)[-2:] == [0, 1] or row == [1] for row in rows)
        self.chosen = [row.index(1) for row in rows] if rows is not None and is_selection else None
        self.mixture = "" if is_selection else draft.mixture
        self.used = self.session.image.summary
        self.is_changed = draft != self.session.image

    def _show_state(self) -> None:
        session = self.session
        self.is_trained, self.is_busy = bool(session.step), session.is_busy and session.job != "embed"

    def _draw(self) -> None:
        if not self._views:
            return
        self.number = next(self._numbers)
        number, draft, seed = self.number, self._draft, self._seed
        self._work.do("draw", lambda: self._send_images(number, draft, seed))

    # On the background thread.

    def _sample(self, seed: int) -> list[str]:
        """Return which images are shown: some anomalies, the others at random."""
        session = self.session
        rng = np.random.default_rng(seed)
        anomalies = [
            i
            for i, line in session.labels.current().items()
            if line.label == "anomaly" and i in session.pictures
        ]
        found = [anomalies[k] for k in rng.permutation(len(anomalies))[:_ANOMALIES]]
        n = len(session.source)
        for k in rng.integers(0, n, 4 * _SHOWN):
            image_id = session.source.ids[int(k)]
            if len(found) < min(_SHOWN, n) and image_id not in found:
                found.append(image_id)
        return found

    def _pixels(self, image_id: str) -> NDArray[Any] | ImageReadError:
        if image_id not in self._read:
            try:
                self._read[image_id] = self.session.pictures.pixels(image_id)
            except ImageReadError as error:
                self._read[image_id] = error
        return self._read[image_id]

    def _send_images(self, number: int, draft: Preprocess, seed: int) -> None:
        image_ids = self._sample(seed)
        for image_id in self._read.keys() - set(image_ids):
            del self._read[image_id]
        labels = self.session.labels
        with self.desk.lock:
            if number != self.number:
                return
            marks = {i: kept.label or "" for i in image_ids if (kept := labels.get(i)) is not None}
            self.tiles = [[i, marks.get(i, "")] for i in image_ids]
        for place, image_id in enumerate(image_ids):
            url, problem = self._picture(image_id, draft)
            with self.desk.lock:
                if number != self.number:
                    return
                self.send({"method": "image", "args": [number, place, url, problem]})
        self._tell_facts(image_ids)

    def _picture(self, image_id: str, draft: Preprocess) -> tuple[str, str]:
        """Return the image as the model would see it, or why it would not."""
        try:
            pixels = self._pixels(image_id)
            if isinstance(pixels, ImageReadError):
                return "", pixels.reason
            return data_url(encode_picture(as_rgb(draft(pixels)))), ""
        except ValueError as error:  # of Preprocess, in plain words
            return "", str(error)
        except Exception as error:  # noqa: BLE001 (a border: the reason is shown in place of the image)
            _log.exception("No preview of %r", image_id)
            return "", in_words(error)

    def _tell_facts(self, image_ids: list[str]) -> None:
        read = [pixels for i in image_ids if isinstance(pixels := self._pixels(i), np.ndarray)]
        sizes = sorted({f"{p.shape[1]} x {p.shape[0]} px" for p in read})
        rows = [
            ["size", sizes[0] if len(sizes) == 1 else f"{sizes[0]} and others" if sizes else "unknown"],
            ["pixels", ", ".join(sorted({str(p.dtype) for p in read})) or "unknown"],
        ]
        if read and any(p.dtype != np.uint8 for p in read):
            finite = [p[np.isfinite(p)] for p in read]
            values = [v for v in finite if v.size]
            if values:
                low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
                rows.append(["values", f"{low:.4g} to {high:.4g}"])
            n_blank = sum(p.size - v.size for p, v in zip(read, finite, strict=True))
            if n_blank:
                rows.append(["no data:", f"{n_blank / sum(p.size for p in read):.1%} of the pixels"])
        with self.desk.lock:
            self.facts = rows

    def _measure_limits(self) -> None:
        """Begin fixed limits at what the sample has between its outermost percentiles."""
        with self.desk.lock:
            draft, seed = self._draft, self._seed
        plain = Preprocess.from_dict(
            draft.to_dict()
            | {"limits": "percentile", "black": _EDGES[0], "white": _EDGES[1], "per_channel": False}
        )
        found: list[tuple[float, float]] = []
        for image_id in self._sample(seed):
            pixels = self._pixels(image_id)
            if isinstance(pixels, np.ndarray):
                try:
                    found += limits_of(plain.mixed(plain.cut(pixels)), plain)
                except ValueError:  # of such an image the preview says why
                    continue
        low, high = (min(f[0] for f in found), max(f[1] for f in found)) if found else (0.0, 1.0)
        if low >= high:
            high = low + 1
        options = draft.to_dict() | {
            "limits": "fixed",
            "low": float(f"{low:.3g}"),
            "high": float(f"{high:.3g}"),
        }
        self.try_out(Preprocess.from_dict(options))
