"""What a session is of: kept in its folder, and compared with what is asked for."""

from __future__ import annotations

import json

import numpy as np
import pytest

from amatch_widgets.demo import sky
from amatch_widgets.errors import ConfigError, SourceError, WorkspaceError
from amatch_widgets.images.array import ArraySource
from amatch_widgets.images.preprocess import Preprocess
from amatch_widgets.learn.config import TrainConfig
from amatch_widgets.session.manifest import Manifest
from amatch_widgets.session.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace(tmp_path / "run")
    yield workspace
    workspace.close()


@pytest.fixture
def with_model(workspace):
    """Let the folder have a checkpoint."""
    workspace.checkpoint(1, 100).touch()
    return workspace


SOURCE = sky(20, size=32)


def manifest(workspace, source=SOURCE, *, train=None, image=None):
    return Manifest.of(workspace, source, train=train, image=image)


def rewrite(workspace, change):
    found = workspace.manifest()
    change(found)
    (workspace.path / "session.json").write_text(json.dumps(found))


def test_a_new_session_has_the_defaults(workspace):
    assert manifest(workspace) == Manifest(TrainConfig(), Preprocess())


def test_options_come_back_without_being_named_again(workspace):
    asked = manifest(workspace, train=TrainConfig(steps=7), image=Preprocess(size=48, crop=20))
    assert manifest(workspace) == asked
    assert asked.train.steps == 7


def test_the_channels_follow_the_source(workspace):
    source = ArraySource(np.zeros((4, 8, 8, 5), np.uint8))
    assert manifest(workspace, source, image=Preprocess(channels=3)).image.channels == 5


def test_the_file_tells_source_options_and_versions(workspace):
    manifest(workspace)
    found = workspace.manifest()
    assert found["source"] == {"kind": "demo", "n": 20, "seed": 0, "size": 32, "prevalence": 0.01}
    assert (found["source_name"], found["n_images"]) == ("sky-0", 20)
    assert found["fingerprint"] == SOURCE.fingerprint()
    assert found["train"]["steps"] == 80
    assert found["versions"]["torch"]


def test_most_options_of_a_training_may_change(with_model):
    manifest(with_model)
    changed = manifest(with_model, train=TrainConfig(steps=3, learning_rate=0.5, weights="random", seed=8))
    assert changed.train.steps == 3
    assert manifest(with_model) == changed


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"backbone": "resnet18"}, "made with backbone='tf_efficientnet_lite0'; found 'resnet18'"),
        ({"test_share": 0.5}, "made with test_share=0.25; found 0.5"),
    ],
)
def test_what_the_model_rests_on_cannot_change(with_model, option, text):
    before = manifest(with_model)
    with pytest.raises(ConfigError, match=text):
        manifest(with_model, train=TrainConfig(**option))
    assert manifest(with_model) == before


def test_other_preparation_of_the_images_is_refused_when_there_is_a_model(with_model):
    manifest(with_model, image=Preprocess(size=48))
    with pytest.raises(
        ConfigError, match=r"with Preprocess\(size=48.*not Preprocess\(size=64.*another path="
    ):
        manifest(with_model, image=Preprocess(size=64))


def test_before_there_is_a_model_a_mistaken_backbone_or_size_can_be_put_right(workspace):
    manifest(workspace, train=TrainConfig(backbone="resnet5O"), image=Preprocess(size=640))
    right = manifest(workspace, train=TrainConfig(backbone="resnet50"), image=Preprocess(size=64))
    assert manifest(workspace) == right
    assert (right.train.backbone, right.image.size) == ("resnet50", 64)


@pytest.mark.parametrize("other", [sky(21, size=32), sky(20, seed=1, size=32)])
def test_other_images_are_refused(workspace, other):
    manifest(workspace)
    with pytest.raises(
        SourceError, match=r"is of 'sky-0' with 20 images; found 'sky-[01]' with 2[01] images"
    ):
        manifest(workspace, other)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("train"),
        lambda m: m.update(train=[]),
        lambda m: m["train"].update(warmup=3),
        lambda m: m["train"].update(steps=0),
        lambda m: m.pop("image"),
        lambda m: m["image"].update(size="large"),
    ],
)
def test_damaged_options_are_an_error_that_says_what_to_do(workspace, change):
    manifest(workspace)
    rewrite(workspace, change)
    with pytest.raises(
        WorkspaceError, match=r"session\.json' is damaged or of a newer version.*move the file"
    ):
        manifest(workspace)


@pytest.mark.parametrize("change", [lambda m: m.pop("n_images"), lambda m: m.update(n_images="x")])
def test_a_damaged_count_does_not_hide_that_the_images_are_others(workspace, change):
    manifest(workspace)
    rewrite(workspace, change)
    with pytest.raises(SourceError, match="found 'sky-1'"):
        manifest(workspace, sky(20, seed=1, size=32))


def test_the_source_of_a_folder_can_be_asked_for(workspace):
    manifest(workspace)
    assert Manifest.source_spec(workspace.path) == SOURCE.spec()


def test_a_folder_that_is_no_session_says_so(tmp_path):
    with pytest.raises(WorkspaceError, match=r"is no session folder: it has no session\.json"):
        Manifest.source_spec(tmp_path)


def test_a_manifest_that_does_not_name_its_images_is_damaged(workspace):
    manifest(workspace)
    rewrite(workspace, lambda m: m.pop("source"))
    with pytest.raises(WorkspaceError, match="it does not say what its images are"):
        Manifest.source_spec(workspace.path)
