"""The model that a session's scores were imported with, kept so that it can score other images."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from amatch_widgets.errors import ConfigError, NotTrainedError, WorkspaceError
from amatch_widgets.images.fitsbolt import FitsboltInput
from amatch_widgets.images.local_copy import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from amatch_widgets.score.anomalymatch import ForeignModel

__all__ = ["ImportedModel", "ModelFacts"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of the model without reading its weights.

    Attributes
    ----------
    image : FitsboltInput
        What is done to images before it sees them.
    backbone : str
        What timm calls the network.
    origin : str
        Which file, for people.
    sha256 : str
        Of that file.
    """

    image: FitsboltInput
    backbone: str
    origin: str
    sha256: str


class ImportedModel:
    """The file in which the model is kept: the weights that score, and how images are prepared for it.

    Parameters
    ----------
    path : Path

    Notes
    -----
    Thread safety: `keep` and `drop` belong on the worker's thread; all else may be called from any. The file
    is replaced as a whole.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, model: ForeignModel) -> None:
        """Keep a model in place of the one before; WorkspaceError if it cannot be written."""
        from safetensors.torch import save  # noqa: PLC0415 (imports torch)

        state = model.classifier.network.state_dict()
        tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
        record = {
            "format": _FORMAT,
            "image": model.image.to_dict(),
            "backbone": model.backbone,
            "origin": model.origin,
            "sha256": model.sha256,
        }
        try:
            write_whole(self.path, save(tensors, {"amatch": json.dumps(record)}))
        except OSError as error:
            raise WorkspaceError(
                f"The model cannot be kept in {str(self.path)!r}: {error.strerror or error}. Nothing was "
                "changed. Free some space, then import it again."
            ) from error

    def drop(self) -> None:
        """Take the model away: the scores that count now are not its own."""
        self.path.unlink(missing_ok=True)

    def facts(self, origin: str) -> ModelFacts:
        """Return what is known of the model behind the scores of a file.

        Raises
        ------
        NotTrainedError
            If only its scores are here, or the file is damaged.
        """
        try:
            with safe_open(self.path, framework="np") as file:
                record = json.loads((file.metadata() or {})["amatch"])
            if record["format"] != _FORMAT:
                raise ConfigError(f"its format is {record['format']!r}")  # noqa: TRY301 (as damage, below)
            facts = ModelFacts(
                FitsboltInput.from_dict(record["image"]),
                str(record["backbone"]),
                str(record["origin"]),
                str(record["sha256"]),
            )
        except FileNotFoundError as error:
            raise _only_scores(origin) from error
        except (OSError, SafetensorError, LookupError, TypeError, ValueError, ConfigError) as error:
            raise _only_scores(origin, f" {str(self.path)!r} cannot be used: {error}.") from error
        if facts.origin != origin:
            raise _only_scores(origin)
        return facts

    def path_of(self, origin: str) -> Path | None:
        """Return where the model behind the scores of a file is kept; None if it is not."""
        try:
            self.facts(origin)
        except NotTrainedError:
            return None
        return self.path

    def read(self, origin: str) -> ForeignModel:
        """Return the model behind the scores of a file; raises as `facts` does."""
        from safetensors.torch import load_file  # noqa: PLC0415 (imports torch)

        from amatch_widgets.score.anomalymatch import (  # noqa: PLC0415 (imports torch)
            ForeignModel,
            classifier_of,
        )

        facts = self.facts(origin)
        try:
            classifier = classifier_of(facts.backbone, facts.image.channels, load_file(self.path))
        except (OSError, SafetensorError, ConfigError) as error:
            raise _only_scores(origin, f" {str(self.path)!r} cannot be used: {error}.") from error
        return ForeignModel(classifier, facts.image, facts.backbone, facts.origin, facts.sha256)


def _only_scores(origin: str, why: str = "") -> NotTrainedError:
    return NotTrainedError(
        f"The model behind {origin} takes part in the ranking, and only its scores are here.{why} To score "
        "other images, train first, session.train(); or begin a session with the model itself, a "
        ".safetensors file of AnomalyMatch 2: session.import_model(path)."
    )
