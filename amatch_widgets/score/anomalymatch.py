"""Models of AnomalyMatch 2: its ``.safetensors`` checkpoints, read without unpickling anything.

Such a file holds the tensors ``train_model.*``, ``eval_model.*`` and ``optimizer.state.*``; all else is JSON
in its metadata, a text for each key. What matters here: ``net``, the network's name; ``num_channels``;
``normalisation_method`` and ``last_normalisation_method``; ``fitsbolt_cfg``, how its images were read; and
``channel_combination``, how their bands were mixed. Values that JSON does not know are marked, as in
``{"__enum__": "NormalisationMethod", "name": "ASINH"}``. The eval model is the average of the weights; it
saw uint8 divided by 255, and its second class is the anomaly.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from amatch_widgets.errors import ConfigError, WeightsError
from amatch_widgets.images.fitsbolt import FitsboltInput
from amatch_widgets.learn._timm import timm
from amatch_widgets.learn.backbone import N_CLASSES, Classifier

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

__all__ = ["ForeignModel", "classifier_of", "read_model"]

_LITE = "efficientnet-lite0"  # where the file does not name its network: that of AnomalyMatch by default
_NETWORKS = {f"efficientnet-lite{k}": f"tf_efficientnet_lite{k}" for k in range(5)}
_NETWORKS |= {f"efficientnet-b{k}": f"efficientnet_b{k}" for k in range(8)}
_PART = "eval_model."
_MARKS = ("__numpy_dtype__", "__numpy_dtype_type__", "__numpy_array__")


@dataclass(frozen=True, slots=True, eq=False)
class ForeignModel:
    """A model that was trained elsewhere.

    Parameters
    ----------
    classifier : Classifier
        On the CPU. Its class 1 is the anomaly.
    image : FitsboltInput
        What is done to images before it sees them.
    backbone : str
        What timm calls the network.
    origin : str
        Which file, for people, e.g. "'model_iteration_3.safetensors' (AnomalyMatch 2)".
    sha256 : str
        Of that file: 64 hex digits.
    """

    classifier: Classifier
    image: FitsboltInput
    backbone: str
    origin: str
    sha256: str

    def __repr__(self) -> str:
        return f"ForeignModel({self.origin}, {self.image.summary})"


def read_model(path: Path, *, size: int | None = None) -> ForeignModel:
    """Read the eval model of a checkpoint of AnomalyMatch 2.

    Parameters
    ----------
    path : Path
        A ``.safetensors`` file. The ``.pth`` files of AnomalyMatch 1 are pickles, which are not read.
    size : int, optional
        Side in pixels of the images that it was trained on, where the file does not say.

    Raises
    ------
    WeightsError
        If it cannot be read, or network or images cannot be made as they were there.
    """
    if path.suffix.lower() in (".pth", ".pt", ".pkl", ".ckpt"):
        raise WeightsError(
            f"{path.name!r} is a pickle, which may run any program when it is read, and is not opened. "
            "AnomalyMatch 2 saves and converts models as .safetensors: pass such a file."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            facts = {key: _plain(text) for key, text in (file.metadata() or {}).items()}
            names = [name for name in file.keys() if name.startswith(_PART)]  # noqa: SIM118 (not a dict)
            state = {name.removeprefix(_PART): file.get_tensor(name) for name in names}
        with path.open("rb") as read:
            sha256 = hashlib.file_digest(read, "sha256").hexdigest()
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"The model {str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}. Wanted is "
            "a .safetensors file of AnomalyMatch 2."
        ) from error
    if not state or not isinstance(facts.get("fitsbolt_cfg"), dict):
        what = "no tensor is named eval_model.*" if not state else "it does not say how images are read"
        raise WeightsError(
            f"{path.name!r} is not a model that AnomalyMatch 2 can score images with: {what}. Wanted is a "
            "model_iteration_….safetensors, as its sessions save."
        )
    try:
        image = _image(facts, size)
        backbone = _backbone(facts.get("net") or _LITE)
        classifier = classifier_of(backbone, image.channels, state)
    except (
        ConfigError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
    ) as error:  # whatever it holds
        raise WeightsError(
            f"The model in {path.name!r} cannot be used: {error}. Its scores can be: let AnomalyMatch score "
            "the images, and pass its predictions.db to session.import_scores()."
        ) from error
    return ForeignModel(classifier, image, backbone, f"{path.name!r} (AnomalyMatch 2)", sha256)


def _image(facts: dict[str, Any], size: int | None) -> FitsboltInput:
    config, channels = dict(facts["fitsbolt_cfg"]), facts.get("num_channels")
    if isinstance(channels, bool) or not isinstance(channels, int) or not 1 <= channels <= 1024:  # noqa: PLR2004
        raise ConfigError(f"its number of channels is {channels!r}")
    if facts.get("channel_combination") is not None:
        config["channel_combination"] = facts["channel_combination"]
    methods = [facts.get(name) for name in ("last_normalisation_method", "normalisation_method")]
    found = {m for m in (*methods, config.get("normalisation_method")) if m is not None}
    if len(found) != 1:
        raise ConfigError(f"it names the normalisations {sorted(map(str, found))} instead of one")
    return FitsboltInput.of(config, method=str(found.pop()), channels=channels, size=size)


def _backbone(net: str) -> str:
    if net not in _NETWORKS:
        raise ConfigError(f"its network {net!r} is none of {', '.join(_NETWORKS)}")
    return _NETWORKS[net]


def classifier_of(backbone: str, channels: int, state: dict[str, Tensor]) -> Classifier:
    """Build the network of a model of AnomalyMatch; ConfigError where the tensors are not its own."""
    network = timm.create_model(backbone, num_classes=N_CLASSES, in_chans=channels)
    own = network.state_dict()
    odd = sorted(state.keys() ^ own.keys()) or [k for k in own if own[k].shape != state[k].shape]
    if odd:
        raise ConfigError(
            f"its tensors are not those of {backbone!r} with {channels} channels and two classes: {len(odd)} "
            f"differ, the first {odd[0]!r}"
        )
    network.load_state_dict(state)
    # The images are not normalised there: the network sees [0, 1].
    classifier = Classifier(network, [0.0] * channels, [1.0] * channels)
    return classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _plain(text: str) -> Any:
    """Read one value of the metadata; None where it is no JSON, as the table of labels."""
    try:
        return json.loads(text, object_hook=_unmarked)
    except ValueError:
        return None


def _unmarked(value: dict[str, Any]) -> Any:
    if "__enum__" in value:
        return value.get("name")
    return next((value[mark] for mark in _MARKS if mark in value), value)
