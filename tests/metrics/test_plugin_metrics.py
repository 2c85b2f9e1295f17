"""The built-in plugin's metrics: each against a second implementation, or a case worked by hand."""

import math
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import colorbench_metrics
import numpy as np
import pytest
import torch
from colorbench_metrics import inception
from colorbench_metrics.auc import SIDE, auc, color_probabilities, weighted_auc
from colorbench_metrics.lpips import CHANNELS, LAYERS, network
from colorbench_metrics.weights import load
from PIL import Image

from colorbench import plugins
from colorbench.metrics import score_batch
from colorbench.metrics.extra import join
from colorbench.metrics.pair import Pair


def _lab(*colors):
    """A picture of one row with these ab: float32 (1, 3, 1, W)."""
    return torch.tensor([(50.0, *ab) for ab in colors]).T[None, :, None, :]


def _area(error):
    """By the definition: the share of one pixel within each threshold, joined by straight lines."""
    curve = [float(error <= threshold) for threshold in range(151)]
    return sum((left + right) / 2 for left, right in pairwise(curve)) / 150


def _random_lab(seed, images=3):
    generator = torch.Generator().manual_seed(seed)
    lab = torch.rand(images, 3, 6, 7, generator=generator) * 200 - 100
    lab[:, :, 0] = lab[:, :, 0].round()  # whole distances, which lie on a threshold
    return lab


def _color(ab):
    return tuple(math.floor(value / 10 + 0.5) for value in ab)


def _frequencies(train):
    """By bin (a, b): counts of the nearest points, smoothed, the unseen as the rarest, to sum 1; by loops."""
    counts = {}
    for ab in train[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2).tolist():
        counts[_color(ab)] = counts.get(_color(ab), 0) + 1
    bins = [(a, b) for a in range(-11, 12) for b in range(-11, 12)]
    smooth = {
        (a, b): sum(
            counts.get((a + i, b + j), 0) * math.exp(-((10 * i) ** 2 + (10 * j) ** 2) / (2 * 5**2))
            for i in range(-2, 3)
            for j in range(-2, 3)
        )
        for a, b in bins
    }
    rarest = min(smooth[color] for color in counts)
    floored = {color: max(value, rarest) for color, value in smooth.items()}
    return {color: value / sum(floored.values()) for color, value in floored.items()}


def test_auc_by_hand():
    assert _area(0) == 1
    truth = _lab((0, 0), (0, 0), (0, 0), (0, 0))
    predicted = _lab((0, 0), (3, 4), (0, 150), (120, -120))
    # A distance of 5 is within 5..150: an area of 145 and half a step; 150 within the last alone; the last never.
    assert auc(predicted, truth).item() == pytest.approx((150 + 145.5 + 0.5 + 0) / 4 / 150)


def test_auc_agrees_with_the_definition_pixel_by_pixel():
    predicted, truth = _random_lab(0), _random_lab(1)
    distances = (predicted - truth)[:, 1:].double().square().sum(1).sqrt()
    expected = [np.mean([_area(d) for d in image.flatten().tolist()]) for image in distances.float()]
    np.testing.assert_allclose(auc(predicted, truth), expected, atol=1e-6)


def test_rebalanced_auc_agrees_with_loops():
    predicted, truth, train = _random_lab(0), _random_lab(1), _random_lab(2, 5)
    train[:, 1:] *= 0.3  # so that many colors of the test images are not seen
    probabilities, expected = color_probabilities(iter(train.split(2))), _frequencies(train)
    by_bin = [expected[divmod(i, SIDE)[0] - 11, divmod(i, SIDE)[1] - 11] for i in range(SIDE**2)]
    np.testing.assert_allclose(probabilities, by_bin, rtol=1e-9)
    areas = weights = 0.0
    for p, t in zip(
        *(lab[:, 1:].permute(0, 2, 3, 1).reshape(-1, 2).tolist() for lab in (predicted, truth)), strict=True
    ):
        areas += _area(np.hypot(*np.subtract(p, t, dtype=np.float32))) / expected[_color(t)]
        weights += 1 / expected[_color(t)]
    found = colorbench_metrics._weighted_mean(weighted_auc(predicted, truth, probabilities).numpy())
    assert found == pytest.approx(areas / weights, rel=1e-6)


def test_rebalancing_weighs_rare_colors_more():
    train = _lab(*[(0, 0)] * 99, (60, 60))
    truth, grey = _lab((0, 0), (60, 60)), _lab((0, 0), (0, 0))
    features = weighted_auc(grey, truth, color_probabilities(iter([train]))).numpy()
    assert colorbench_metrics._weighted_mean(features) < auc(grey, truth).item()


def test_the_colorfulness_difference_is_of_the_means():
    spec = plugins.load().metrics["colorfulness_difference"]
    rng = np.random.default_rng(0)
    brightest = np.array([[99, 256, 60, 99], [256, 99, 256, 256]]).reshape(2, 4, 1, 1, 1)  # one is more colorful
    predicted, truth = torch.from_numpy((rng.random((2, 4, 3, 16, 16)) * brightest).astype(np.uint8))
    scored = score_batch(Pair(predicted, truth), [spec])
    row = join([spec], scored.features, scored.scores).iloc[0]
    means = [score_batch(Pair(images, images)).scores["colorfulness"].mean() for images in (predicted, truth)]
    assert row["value"] == pytest.approx(abs(means[0] - means[1]))
    assert row["low"] < row["value"] < row["high"]


@pytest.fixture
def folders(tmp_path):
    """Two folders of pictures, and the same as uint8 (N, 3, H, W)."""
    rng, found = np.random.default_rng(0), []
    for name, brightest in (("predicted", 160), ("truth", 256)):
        coarse = torch.from_numpy(rng.random((9, 3, 4, 4), dtype=np.float32))
        images = (
            torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic").clamp(0, 1) * (brightest - 1)
        ).byte()
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i}.png")
        found.append((tmp_path / name, images))
    return found


def test_fid_and_kid_are_those_of_torch_fidelity(folders, random_inception, monkeypatch):
    import torch_fidelity

    monkeypatch.setattr(inception, "LAYER", "64")  # the covariance of 2,048 features takes half a minute
    metrics = [m for m in plugins.load(weights={"fid": random_inception}).metrics.values() if "weights" in m.settings]
    (first, predicted), (second, truth) = folders
    scored = score_batch(Pair(predicted, truth), metrics)
    found = join(metrics, scored.features, scored.scores).set_index("metric")["value"]
    expected = torch_fidelity.calculate_metrics(
        input1=str(first), input2=str(second), fid=True, kid=True, cuda=False, verbose=False,
        cache=False, save_cpu_ram=True,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(random_inception),
        feature_layer_fid="64", feature_layer_kid="64", kid_subset_size=len(truth), kid_subsets=1,
    )  # fmt: skip
    digits = metrics[0].settings["weights"][:8]
    assert found[f"frechet_{digits}"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-5)
    assert found[f"kernel_{digits}"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-5)
    assert found.min() > 0


def test_kid_of_many_images_is_the_mean_over_subsets():
    from torch_fidelity.metric_kid import kid_features_to_metric

    features = np.random.default_rng(0).random((40, 12)).astype(np.float32)
    halves = torch.from_numpy(features).chunk(2, dim=1)
    expected = kid_features_to_metric(*halves, kid_subsets=5, kid_subset_size=20, verbose=False)
    assert inception.kid(features.astype(float), 5, 20) == expected["kernel_inception_distance_mean"]


def test_of_too_few_images_there_is_neither():
    features = np.random.default_rng(0).random((inception.FEWEST - 1, 12))
    assert np.isnan([inception.fid(features), inception.kid(features, 1, 1000)]).all()


def _named(**weights):
    return plugins.load(weights=weights).specs["metric"]


def test_other_weights_give_neither_fid_nor_kid(random_inception):
    found = _named(fid=random_inception)
    others = {name: spec for name, spec in found.items() if name.startswith(("frechet_", "kernel_"))}
    assert len(others) == 2
    for name in ("fid", "kid"):
        assert all(other in found[name].missing for other in others)
    for spec in others.values():
        digits = spec.settings["weights"]
        assert spec.name.endswith(digits[:8])
        assert digits[:12] in spec.notes[0]


def test_its_own_weights_give_fid_and_kid(random_inception, tmp_path, monkeypatch):
    """As if the digits in the name of the published file were those of these weights."""
    digits = next(name for name in _named(fid=random_inception) if name.startswith("frechet_")).partition("_")[2]
    monkeypatch.setattr(colorbench_metrics, "INCEPTION", f"weights-inception-{digits}.pth")
    assert {"fid", "kid"} <= {name for name, spec in _named(fid=random_inception).items() if not spec.missing}
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    assert _named()["fid"].missing
    shutil.copy(random_inception, cache / f"weights-inception-{digits}.pth")
    assert not _named()["fid"].missing
    (cache / f"weights-inception-{digits}.pth").write_bytes(b"another")
    assert "its distances are called frechet_" in _named()["fid"].missing


def test_lpips_agrees_with_its_definition(random_lpips, monkeypatch):
    monkeypatch.setattr(colorbench_metrics, "VGG16", next(random_lpips.glob("vgg16-*")).name)
    spec = _named(lpips=random_lpips)["lpips"]
    predicted, truth = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    state = torch.load(next(random_lpips.glob("vgg16-*")), weights_only=True)
    weights = torch.load(random_lpips / "lpips_weights.pt", weights_only=True)

    def features(images):
        """VGG16 layer by layer, each pixel's features divided by their length."""
        x, found = (images / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)), []
        x = x / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        pooled = {"4", "9", "16", "23"}
        for index in map(str, range(30)):
            if f"features.{index}.weight" in state:
                x = torch.nn.functional.conv2d(
                    x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1
                )
            else:
                x = torch.nn.functional.max_pool2d(x, 2) if index in pooled else x.clamp(min=0)
            if index in LAYERS:
                found.append(x / x.square().sum(1, keepdim=True).sqrt())
        return found

    layers = zip(features(predicted), features(truth), weights, strict=True)
    expected = sum(((p - t).square() * w).sum(1).mean((1, 2)) for p, t, w in layers)
    torch.testing.assert_close(spec.compute(predicted, truth), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("lost", ["vgg16", "lpips", "both", "another"])
def test_lpips_without_its_weights_says_what_to_do(random_lpips, tmp_path, monkeypatch, lost):
    (vgg16,) = random_lpips.glob("vgg16-*")
    name = vgg16.name if lost != "another" else "vgg16-00000000.pth"
    monkeypatch.setattr(colorbench_metrics, "VGG16", name)
    if lost not in ("vgg16", "both"):
        shutil.copy(vgg16, tmp_path / name)
    if lost not in ("lpips", "both"):
        shutil.copy(random_lpips / "lpips_weights.pt", tmp_path)
    missing = _named(lpips=tmp_path)["lpips"].missing
    assert "--weights lpips=FOLDER" in missing
    assert (str(tmp_path / name) if lost == "another" else "lpips_weights.pt" if lost == "lpips" else name) in missing


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"lin0": torch.ones(1, 64, 1, 1)}, r"not a list of tensors of shape \(1, 64, 1, 1\), \(1, 128"),
        ([torch.ones(64)] * 5, "not a list of tensors"),
        ([torch.full((1, channels, 1, 1), torch.nan) for channels in CHANNELS], "not all finite numbers"),
    ],
)
def test_lpips_weights_of_other_layers_are_refused(weights, said):
    with pytest.raises(ValueError, match=f"the weights of the layers are {said}"):
        network({}, weights)


def test_a_weight_file_of_absurd_size_is_not_read(tmp_path):
    with (tmp_path / "inception.pth").open("wb") as sparse:
        sparse.truncate(1 << 43)
    assert "inception.pth: larger than 1 GiB; name the file" in _named(fid=tmp_path / "inception.pth")["fid"].missing


class Hostile:
    """What a pickle may be made of."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_in_a_file_of_weights_is_run(tmp_path, random_inception):
    file, ran = tmp_path / "hostile.pth", tmp_path / "ran"
    torch.save({"Conv2d_1a_3x3.conv.weight": Hostile(ran)}, file)
    found = _named(fid=file)
    (spec,) = (spec for name, spec in found.items() if name.startswith("frechet_"))
    pictures = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"hostile\.pth holds no plain tensors .*name a file of weights"):
        spec.compute(pictures, pictures)
    assert not ran.exists()
    pickle.loads(pickle.dumps(Hostile(ran)))
    assert ran.exists(), "the file would have been harmless"


def test_weights_that_change_meanwhile_are_refused(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"others")
    with pytest.raises(ValueError, match="has changed since it was named"):
        load(tmp_path / "weights.pth", "0" * 64)


def test_without_torch_fidelity_the_remedy_is_named(monkeypatch, random_inception):
    monkeypatch.setattr(colorbench_metrics, "find_spec", lambda name: None)
    assert "pip install 'colorbench[fid]'" in _named(fid=random_inception)["fid"].missing


def test_weights_that_are_no_file_are_named(tmp_path):
    assert "Is a directory" in _named(fid=tmp_path)["kid"].missing
