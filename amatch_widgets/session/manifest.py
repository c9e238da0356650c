"""What a session is of, as kept in ``session.json``: the images, their preparation, the training."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Self

from amatch_widgets.errors import ConfigError, ImageReadError, SourceError, WorkspaceError
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session.workspace import read_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from amatch_widgets.images.source import ImageSource
    from amatch_widgets.session.workspace import Workspace

__all__ = ["Manifest"]

_VERSIONS = ("amatch-widgets", "torch", "timm", "numpy", "pillow")
# What labels, scores and checkpoints rest on; the other options may change from cycle to cycle.
_FIXED = ("backbone", "test_share")
# Sides, in pixels, that models are trained on when nobody says: larger ones take 2 cores too long.
_SMALLEST_SIDE, _LARGEST_SIDE = 64, 128
_TRIED = 5  # images


@dataclass(frozen=True, slots=True)
class Manifest:
    """The options of a session.

    Attributes
    ----------
    train : TrainConfig
    image : Preprocess
    has_up : bool or None
        Whether the images have an up; None before it was measured.
    embeddings : dict or None
        What the embeddings in use were made of (see `embed_images`); None before there are any.
    """

    train: TrainConfig
    image: Preprocess
    has_up: bool | None = None
    embeddings: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        workspace: Workspace,
        source: ImageSource,
        *,
        train: TrainConfig | None,
        image: Preprocess | None,
    ) -> Self:
        """Read the manifest of a session folder, or make that of a new one.

        Parameters
        ----------
        workspace : Workspace
        source : ImageSource
        train, image : optional
            What the user asks for; None for what the folder says, or the defaults: images keep their
            side where it is between 64 and 128 px.

        Returns
        -------
        Manifest
            Written to the folder.

        Raises
        ------
        SourceError
            If the folder's session is of other images.
        ConfigError
            If an option is asked for that cannot change any more.
        """
        image = None if image is None else image.fitted(source)
        found = workspace.manifest()
        if found is None:
            manifest = cls(train or TrainConfig(), image or _natural_preprocess(source))
        else:
            _check_source(workspace.path, found, source)
            trained, prepared = _options(workspace.path, found)
            kept = cls(trained, prepared.fitted(source), **_measured(found))
            kept._check(workspace, train, image)
            manifest = dataclasses.replace(kept, train=train or kept.train, image=image or kept.image)
        manifest.write(workspace, source)
        return manifest

    def write(self, workspace: Workspace, source: ImageSource) -> None:
        """Write the manifest to the session folder."""
        workspace.write_manifest(
            {
                "source": source.spec(),
                "source_name": source.name,
                "fingerprint": source.fingerprint(),
                "n_images": len(source),
                "train": self.train.to_dict(),
                "image": self.image.to_dict(),
                "has_up": self.has_up,
                "embeddings": self.embeddings,
                "versions": {name: _version(name) for name in _VERSIONS},
            }
        )

    @staticmethod
    def source_spec(path: Path) -> dict[str, Any]:
        """Return what is needed to open the images of the session folder `path` again."""
        found = read_manifest(path)
        if found is None:
            raise WorkspaceError(
                f"{str(path)!r} is no session folder: it has no session.json. Give the path= of an earlier "
                "session, or begin a new one: amatch_widgets.Session(source, path=...)."
            )
        spec = found.get("source")
        if not isinstance(spec, dict):
            raise _damaged(path, "it does not say what its images are")
        return spec

    def _check(self, workspace: Workspace, train: TrainConfig | None, image: Preprocess | None) -> None:
        path, has_model = workspace.path, bool(workspace.checkpoints())
        if image is not None and image != self.image and has_model:
            raise ConfigError(
                f"The session in {str(path)!r} prepares images with {self.image}, not {image}: its scores "
                "and model rest on that. Leave image= out, or choose another path=."
            )
        for name in _FIXED if train is not None else ():
            old, new = getattr(self.train, name), getattr(train, name)
            if old != new and (has_model or name != "backbone"):
                raise ConfigError(
                    f"The session in {str(path)!r} was made with {name}={old!r}; found {new!r}. This option "
                    "cannot change within a session: keep it, or choose another path=."
                )


def _natural_preprocess(source: ImageSource) -> Preprocess:
    """Return the preparation that suits the first image that can be read: its own side, within limits."""
    side = _LARGEST_SIDE
    for index in range(min(len(source), _TRIED)):
        with contextlib.suppress(ImageReadError):  # it will be listed when its turn comes
            side = min(source.read(index, min_side=_LARGEST_SIDE).shape[:2])
            break
    return Preprocess(size=max(_SMALLEST_SIDE, min(side, _LARGEST_SIDE))).fitted(source)


def _check_source(path: Path, found: dict[str, Any], source: ImageSource) -> None:
    if found.get("fingerprint") != source.fingerprint():
        raise SourceError(
            f"The session in {str(path)!r} is of {found.get('source_name')!r} with "
            f"{found.get('n_images')} images; found {source.name!r} with {len(source)} images, or the "
            "same number under other names. Give the same images, or choose another path= for these."
        )


def _options(path: Path, found: dict[str, Any]) -> tuple[TrainConfig, Preprocess]:
    try:
        return TrainConfig.from_dict(found["train"]), Preprocess.from_dict(found["image"])
    except (KeyError, TypeError, ConfigError) as error:
        raise _damaged(path, error) from error


def _measured(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was measured of the images; folders of older versions do not say."""
    has_up, embeddings = found.get("has_up"), found.get("embeddings")
    return {
        "has_up": has_up if isinstance(has_up, bool) else None,
        "embeddings": embeddings if isinstance(embeddings, dict) else None,
    }


def _damaged(path: Path, why: object) -> WorkspaceError:
    return WorkspaceError(
        f"The manifest {str(path / 'session.json')!r} is damaged or of a newer version: {why}. Update "
        "amatch-widgets, or move the file away and make the session again with the same source."
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a source tree
        return ""
