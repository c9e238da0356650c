"""What the parts of the facade share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amatch_widgets.errors import LabelError
from amatch_widgets.session.own import is_outside

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from amatch_widgets.events import EventHub
    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.labels import LabelStore, OwnLabels
    from amatch_widgets.learn.config import TrainConfig
    from amatch_widgets.session.archives import Archives
    from amatch_widgets.session.audits import Audits
    from amatch_widgets.session.comparing import Comparing
    from amatch_widgets.session.engine import Engine
    from amatch_widgets.session.explain import Explainer
    from amatch_widgets.session.imported import ImportedModel
    from amatch_widgets.session.learnable import Learnable
    from amatch_widgets.session.pictures import Pictures
    from amatch_widgets.session.scoreboard import Scoreboard
    from amatch_widgets.session.teaching import Teaching
    from amatch_widgets.session.tiers import Tiers
    from amatch_widgets.session.workspace import Workspace
    from amatch_widgets.worker import Worker

__all__ = ["Parts"]


class Parts:
    """The attributes that `Session` makes and the classes it is made of use."""

    source: ImageSource
    path: Path
    hub: EventHub
    labels: LabelStore
    own_labels: OwnLabels
    annotator: str
    pictures: Pictures
    _index: Mapping[str, int]
    _board: Scoreboard
    _tiers: Tiers
    _archives: Archives
    _audits: Audits
    _comparing: Comparing
    _explain: Explainer
    _imported: ImportedModel
    _tables: set[Path]
    _teaching: Teaching
    _notices: list[str]
    _unreadable: dict[str, str]
    _workspace: Workspace
    _engine: Engine
    _learnable: Learnable
    _worker: Worker

    @property
    def config(self) -> TrainConfig:
        """The training options."""
        raise NotImplementedError

    def _check_ids(self, image_ids: Iterable[str], consequence: str = "") -> None:
        """Refuse ids that no image of the session or of an archive has."""
        self._check_own_ids((i for i in image_ids if i not in self.pictures), consequence)

    def _check_own_ids(self, image_ids: Iterable[str], consequence: str = "") -> None:
        """Refuse ids that no image of the session's own has."""
        unknown = [i for i in image_ids if i not in self._index]
        if unknown and unknown[0] in self.pictures:
            raise LabelError(
                f"{unknown[0]!r} is an image of an archive. This is known of the session's own images only, "
                f"those of {self.source.name!r}.{consequence}"
            )
        if unknown and is_outside(self.source, unknown[0]):
            raise LabelError(
                f"{unknown[0]!r} is not in the sample that this session has of {self.source.name!r}. Score "
                "all images, session.score(source); its name is then the one that "
                f"session.archive({self.source.name!r}).id_of({unknown[0]!r}) returns.{consequence}"
            )
        if unknown:
            raise LabelError(
                f"Unknown image id {unknown[0]!r}"
                + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else "")
                + f". The ids of {self.source.name!r} look like {self.source.ids[0]!r}."
                + consequence
            )
