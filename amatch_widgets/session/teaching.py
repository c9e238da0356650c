"""What the labels of archives teach: their images are embedded too, in the background."""

from __future__ import annotations

import base64
import itertools
import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from amatch_widgets.errors import ImageReadError, LabelError, NotTrainedError, StateError
from amatch_widgets.events import ArchiveBegun, Event, Message, ProblemFound, ScoresChanged
from amatch_widgets.labels import CLASSES
from amatch_widgets.session._lines import JsonLines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from amatch_widgets.events import EventHub
    from amatch_widgets.labels import Label
    from amatch_widgets.query.head import Outside
    from amatch_widgets.session.embedder import ReadyEmbedder
    from amatch_widgets.session.pictures import Pictures
    from amatch_widgets.session.tiers import Space

__all__ = ["Teaching"]

_log = logging.getLogger(__name__)
_BATCH = 16  # images a step of a running job waits for: a second on two cores


class Teaching:
    """Give the instant tier the vectors of labelled images that are not the session's own.

    They are made by the network and the projection of the session's embeddings, and kept in a file: deleting
    it costs the time to make them again.

    Parameters
    ----------
    path : Path
        Read if it exists.
    lines : callable
        Returns the labels of archives' images, by their names in the session.
    pictures : Pictures
        Reads the images.
    space : callable
        Returns what the session's embeddings were made with; None before there are any.
    embedder : ReadyEmbedder
    run : callable
        Runs a function on the worker's thread and returns what it returns.
    changed : callable
        Called when there are new vectors.
    hub : EventHub
        Tells of new embeddings, and is told of images that cannot be read.

    Notes
    -----
    Thread safety: ``_changed`` guards all that changes.
    Images are read and embedded outside it, on this object's thread, or the worker's in `catch_up`. All
    else may be called from any thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        lines: Callable[[], dict[str, Label]],
        pictures: Pictures,
        space: Callable[[], Space | None],
        embedder: ReadyEmbedder,
        run: Callable[[Callable[[], npt.NDArray[np.float16]]], npt.NDArray[np.float16]],
        changed: Callable[[], None],
        hub: EventHub,
    ) -> None:
        self._lines, self._pictures, self._space = lines, pictures, space
        self._embedder, self._run_there, self._tell, self._hub = embedder, run, changed, hub
        self._changed = threading.Condition()
        self._vectors: dict[tuple[str, str], npt.NDArray[np.float16]] = {}  # by space and image
        self._unreadable: set[str] = set()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._file = JsonLines(path)
        self._file.replay(self._replay)
        self._end = hub.subscribe(self._listen)

    def outside(self) -> tuple[int, Outside]:
        """Return a number that changes with the vectors, and all labelled images that have one."""
        from amatch_widgets.query.head import Outside  # noqa: PLC0415 (imports scikit-learn)

        space = self._space()
        key = "" if space is None else space.digest
        lines = self._labelled()
        with self._changed:
            known = sorted(i for i in lines if (key, i) in self._vectors)
            vectors = [self._vectors[key, i] for i in known]
            version = len(self._vectors)
        if space is None or not vectors:
            return version, Outside.nothing()
        classes = np.array([CLASSES.index(str(lines[i].label)) for i in known], np.int64)
        return version, Outside(np.stack(vectors), classes)

    def note(self) -> None:
        """Take note that labels, or the embeddings, have changed; returns at once."""
        if not self._labelled() or self._space() is None:
            return
        with self._changed:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="amatch-teaching", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the labels given so far have their vectors; False when it takes too long."""
        with self._changed:
            if self._thread is None:
                return True
            return self._changed.wait_for(lambda: self._is_closed or not self._missing()[1], timeout_s)

    def catch_up(self) -> None:
        """Make all vectors that are missing; on the worker's thread."""
        space, missing = self._missing()
        if space is not None:
            self._make(space, missing, lambda embed: embed())

    def vectors(self, image_ids: Sequence[str]) -> npt.NDArray[np.float16]:
        """Return the vectors of images of archives, labelled or not; on any thread but the worker's.

        Returns
        -------
        ndarray of float16, shape (N, D)

        Raises
        ------
        NotTrainedError
            If there are no embeddings yet.
        ImageReadError
            If one cannot be read.
        """
        space = self._space()
        if space is None:
            raise NotTrainedError("There are no embeddings yet. Make them first: session.embed().")
        key = space.digest
        with self._changed:
            found = {i: self._vectors[key, i] for i in image_ids if (key, i) in self._vectors}
        missing = [i for i in image_ids if i not in found]
        if missing:
            images = np.stack([self._pictures.prepared(i) for i in missing])
            made = self._run_there(lambda: self._embed(space, images))
            found |= dict(zip(missing, made, strict=True))
        return np.stack([found[i] for i in image_ids])

    def close(self) -> None:
        """End the thread; closing twice does no harm."""
        self._end()
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _listen(self, event: Event) -> None:
        if isinstance(event, ArchiveBegun):  # its images may be there again
            with self._changed:
                self._unreadable.clear()
        if isinstance(event, (ArchiveBegun, ScoresChanged)):
            self.note()

    def _labelled(self) -> dict[str, Label]:
        return {i: line for i, line in self._lines().items() if line.label is not None}

    def _missing(self) -> tuple[Space | None, list[str]]:
        """Return what vectors are made with, and the images that have none yet."""
        space = self._space()
        if space is None:
            return None, []
        key = space.digest
        missing = [i for i in self._labelled() if (key, i) not in self._vectors and i not in self._unreadable]
        return space, missing

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._missing()[1])
                if self._is_closed:
                    return
                space, missing = self._missing()
            assert space is not None  # or nothing would be missing
            try:
                self._make(space, missing[:_BATCH], self._run_there)
            except StateError:  # the session is being closed, or its network is another one now
                with self._changed:
                    self._unreadable.update(missing)
            except Exception as error:  # noqa: BLE001 (the thread's border: it is told in words)
                _log.exception("%d labelled images of archives could not be embedded", len(missing))
                with self._changed:
                    self._unreadable.update(missing)
                reason = f"{type(error).__name__}: {error}"
                text = (
                    f"Labelled images of archives ({len(missing):,}) teach nothing: {reason}. "
                    "The labels are safe; score the archive again to try anew."
                )
                self._hub.publish(Message("error", text))
            with self._changed:
                self._changed.notify_all()

    def _make(
        self,
        space: Space,
        image_ids: Iterable[str],
        run: Callable[[Callable[[], npt.NDArray[np.float16]]], npt.NDArray[np.float16]],
    ) -> None:
        """Read and embed images, and keep their vectors."""
        left = iter(image_ids)
        while batch := list(itertools.islice(left, _BATCH)):
            read = {i: image for i in batch if (image := self._read(i)) is not None}
            if not read:
                continue
            images = np.stack(list(read.values()))
            vectors = run(lambda images=images: self._embed(space, images))  # type: ignore[misc]
            self._keep(space.digest, dict(zip(read, vectors, strict=True)))
            self._tell()

    def _embed(self, space: Space, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
        """Embed images as the session's own are; on the worker's thread."""
        from amatch_widgets.learn.projection import Projection  # noqa: PLC0415 (imports scikit-learn)

        return Projection.from_arrays(space.projection).apply(self._embedder(space.key).raw(images))

    def _read(self, image_id: str) -> npt.NDArray[np.uint8] | None:
        """Read an image as the model sees it; None where it cannot be read, which is told."""
        try:
            return self._pictures.prepared(image_id)
        except ImageReadError as error:
            reason = error.reason
        except (LabelError, NotTrainedError) as error:
            reason = str(error)
        with self._changed:
            self._unreadable.add(image_id)
        self._hub.publish(ProblemFound(image_id, reason))
        return None

    def _keep(self, key: str, vectors: dict[str, npt.NDArray[np.float16]]) -> None:
        with self._changed:
            self._vectors |= {(key, image_id): vector for image_id, vector in vectors.items()}
            self._file.append(
                {"id": i, "key": key, "vector": base64.b64encode(v.astype("<f2").tobytes()).decode()}
                for i, v in vectors.items()
            )

    def _replay(self, entry: dict[str, Any]) -> None:
        vector = np.frombuffer(base64.b64decode(entry["vector"], validate=True), "<f2").astype(np.float16)
        if vector.size and np.isfinite(vector).all():
            self._vectors[str(entry["key"]), str(entry["id"])] = vector
