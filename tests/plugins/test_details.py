"""The details behind the scores: per image against values by hand and a second computation, pooled against pixels."""

import numpy as np
import pandas as pd
import pytest
import torch
from run_folders import FakeRun
from skimage.color import lab2rgb, rgb2lab

from colorbench import plugins, report
from colorbench.errors import UserError
from colorbench.metrics import Pair, score_batch
from colorbench.metrics.terms import Terms
from colorbench.runs.folder import DETAILS, to_parquet

SKY, LEAF, BRICK, LIP, SKIN = (60, 0, -40), (60, -35, -10), (50, 30, 25), (50, 50, 20), (70, 15, 18)  # Lab
IMAGES = 60


def details(predicted, truth, parts=None, attention=None):
    terms = Terms(plugins.load(only={"diagnostics"}).specs["diagnostic"].values())
    score_batch(Pair(predicted, truth, parts or {}, attention), terms=terms)
    assert terms.failed == {}
    return terms.frame()


def picture(*columns):
    """uint8 (12 * len(columns), 12, 3) of stripes, each of one Lab color, 12 pixels wide."""
    lab = np.repeat(np.array(columns, float), 12, axis=0)[None].repeat(12, axis=0)
    return np.round(lab2rgb(lab) * 255).astype(np.uint8)


def tensor(*pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def with_chroma(image, factor):
    lab = rgb2lab(image)
    lab[..., 1:] *= factor
    return np.round(lab2rgb(lab) * 255).astype(np.uint8)


def turned(image, degrees):
    """The image with its hue turned in the ab plane."""
    lab, angle = rgb2lab(image), np.radians(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    lab[..., 1:] = lab[..., 1:] @ rotation
    return np.round(lab2rgb(lab) * 255).astype(np.uint8)


def stripe(index, stripes):
    part = torch.zeros(1, 12, 12 * stripes, dtype=torch.bool)
    part[..., 12 * index : 12 * (index + 1)] = True
    return part


def run(path, cells, refines=None, images=IMAGES):
    """A run folder with these details by (model, seed), written by hand; None for a cell without details."""
    fake = FakeRun(path, list(dict.fromkeys(model for model, _ in cells)), tuple({seed for _, seed in cells}))
    mse = np.linspace(100, 50, images)
    for i, ((model, seed), frame) in enumerate(cells.items()):
        fake.cell(model, seed, mse - i, frame, refines=(refines or {}).get(model))
    report.write(fake.folder)
    return fake


def row_of(path, frame):
    """What the report says of one model with these details."""
    run(path, {("plain", 0): frame}, images=len(frame))
    return pd.read_csv(path / "details.csv").set_index("model").loc["plain"]


def noise(count=IMAGES, side=16, seed=0):
    """Predicted and true pictures of random colors, with parts of random pixels and random attention."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    predicted = np.clip(truth * 0.6 + rng.integers(0, 100, truth.shape), 0, 255).astype(np.uint8)
    owner = rng.integers(0, 3, (count, side, side))
    parts = {name: torch.from_numpy(owner == i) for i, name in enumerate(("skin", "lips", "hair"))}
    attention = torch.from_numpy(rng.random((count, 1, 4, 4), dtype=np.float32))
    return torch.from_numpy(predicted), torch.from_numpy(truth), parts, attention


def test_an_exact_copy_is_perfect(tmp_path):
    _, truth, parts, _ = noise()
    row = row_of(tmp_path, details(truth, truth, parts))
    assert row[["chroma_slope", "cool_recall", "lip_contrast"]].tolist() == pytest.approx([1, 100, 1])
    assert row[["mse_skin", "mse_lips", "mse_hair"]].tolist() == [0, 0, 0]
    assert (row["images"], row["chroma_slope_low"]) == (IMAGES, pytest.approx(1))


def test_half_the_chroma_has_half_the_slope_and_contrast(tmp_path):
    truth = picture(SKY, LEAF, BRICK, LIP, SKIN)
    pale = details(tensor(with_chroma(truth, 0.5)), tensor(truth), {"lips": stripe(3, 5), "skin": stripe(4, 5)})
    row = row_of(tmp_path, pale)
    assert row["chroma_slope"] == pytest.approx(0.5, abs=0.02)
    assert row["lip_contrast"] == pytest.approx(0.5, abs=0.02)
    assert row["cool_recall"] == 100
    assert pd.isna(row["chroma_slope_low"])  # one image has no interval


def test_a_chroma_that_is_everywhere_the_same_has_no_slope(tmp_path):
    truth, flat = picture(SKY, (60, -5, 0), LIP), picture((60, 0, -20), (60, -20, 0), (50, 20, 0))
    assert row_of(tmp_path, details(tensor(flat), tensor(truth)))["chroma_slope"] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("degrees", "recalled"), [(25, 1), (-25, 1), (35, 0), (-35, 0), (180, 0)])
def test_a_hue_is_recalled_within_30_degrees(degrees, recalled):
    truth = picture(SKY, BRICK)  # the second is warm
    row = details(tensor(turned(truth, degrees)), tensor(truth)).iloc[0]
    assert (row["cool_share"], row["cool_recalled_share"]) == (0.5, recalled / 2)


def test_hues_are_cool_from_180_to_300_degrees_and_a_chroma_of_10():
    def at(degrees, chroma=30):
        return 60, chroma * np.cos(np.radians(degrees)), chroma * np.sin(np.radians(degrees))

    stripes = at(175), at(185), at(295), at(305), at(240, 8), at(240, 12), at(60), at(0)
    truth = tensor(picture(*stripes))
    assert details(truth, truth)["cool_share"][0] == 3 / 8


def test_grey_recalls_nothing():
    truth = picture(SKY, SKY)
    assert details(tensor(with_chroma(truth, 0.015)), tensor(truth))["cool_recalled_share"][0] == 0
    assert details(tensor(with_chroma(truth, 0.1)), tensor(truth))["cool_recalled_share"][0] == 1


def test_the_error_of_a_part_is_that_of_its_pixels(tmp_path):
    truth = torch.full((2, 3, 12, 36), 100, dtype=torch.uint8)
    predicted = truth.clone()
    predicted[:, 0, :, :12] = 106  # 36 in one channel of three: 12
    predicted[1, 1, :, 12:24] = 130  # 300, in one of two images
    parts = {name: stripe(i, 3).repeat(2, 1, 1) for i, name in enumerate(("lips", "skin", "hair"))}
    row = row_of(tmp_path, details(predicted, truth, parts))
    assert row[["mse_lips", "mse_skin", "mse_hair"]].tolist() == pytest.approx([12, 150, 0])


def test_lips_of_the_color_of_skin_have_no_contrast(tmp_path):
    parts = {"lips": stripe(0, 2), "skin": stripe(1, 2)}
    frame = details(tensor(picture(SKIN, SKIN)), tensor(picture(LIP, SKIN)), parts)
    assert frame["lip_contrast_true"][0] == pytest.approx(35**2 + 2**2, rel=0.03)
    assert row_of(tmp_path, frame)["lip_contrast"] == pytest.approx(0, abs=0.01)


def test_an_image_without_lips_does_not_count_in_the_contrast(tmp_path):
    lips, skin = torch.cat((stripe(0, 2), stripe(0, 2) & False)), stripe(1, 2).repeat(2, 1, 1)
    truth = tensor(picture(LIP, SKIN), picture(SKY, SKIN))
    frame = details(truth, truth, {"lips": lips, "skin": skin})
    assert frame.loc[1, ["lip_contrast_true", "lip_contrast_product", "share_lips"]].tolist() == [0, 0, 0]
    assert row_of(tmp_path, frame)["lip_contrast"] == pytest.approx(1)


def test_a_map_of_the_true_chroma_correlates_fully_and_a_constant_one_not_at_all():
    predicted, truth, _, _ = noise(4)
    lab = rgb2lab(truth.permute(0, 2, 3, 1).numpy())
    pooled = np.hypot(lab[..., 1], lab[..., 2]).reshape(4, 4, 4, 4, 4).mean((2, 4))
    attention = torch.from_numpy(pooled / 200).float()[:, None]
    assert details(predicted, truth, attention=attention)["attention_correlation"].tolist() == pytest.approx([1] * 4)
    assert details(predicted, truth, attention=1 - attention)["attention_correlation"].tolist() == pytest.approx(
        [-1] * 4
    )
    attention[1] = 0.7 + 1e-7 * (torch.arange(16).view(4, 4) % 2)  # what rounding leaves of a constant
    truth[2] = torch.arange(16, dtype=torch.uint8)  # greys: their chroma is what rounding leaves
    correlations = details(predicted, truth, attention=attention)["attention_correlation"]
    assert correlations.isna().tolist() == [False, True, True, False]


def test_random_images_agree_with_numpy(tmp_path):
    """The same numbers from all pixels at once, without per-image sums."""
    predicted, truth, parts, attention = noise()
    row = row_of(tmp_path, details(predicted, truth, parts, attention))
    guessed, true = (rgb2lab(images.permute(0, 2, 3, 1).numpy())[..., 1:] for images in (predicted, truth))
    t, p = (np.linalg.norm(ab, axis=-1) for ab in (true, guessed))
    assert row["chroma_slope"] == pytest.approx(np.polyfit(t.ravel(), p.ravel(), 1)[0], rel=1e-6)

    hue, guess = (np.degrees(np.arctan2(ab[..., 1], ab[..., 0])) % 360 for ab in (true, guessed))
    cool = (t > 10) & (hue >= 180) & (hue <= 300)
    off = np.abs((guess - hue + 180) % 360 - 180)
    assert row["cool_recall"] == pytest.approx(100 * ((off <= 30) & (p >= 1))[cool].mean(), rel=1e-6)

    squared = ((predicted.double() - truth.double()) ** 2).mean(1).numpy()
    masks = {name: part.numpy() for name, part in parts.items()}
    for name, mask in masks.items():
        assert row[f"mse_{name}"] == pytest.approx(squared[mask].mean(), rel=1e-6)

    dots = [
        [(a[i][masks["lips"][i]].mean(0) - a[i][masks["skin"][i]].mean(0)) for a in (true, guessed)]
        for i in range(IMAGES)
    ]
    above, below = sum(t @ p for t, p in dots), sum(t @ t for t, _ in dots)
    assert row["lip_contrast"] == pytest.approx(above / below, rel=1e-6)

    pooled = t.reshape(IMAGES, 4, 4, 4, 4).mean((2, 4)).reshape(IMAGES, -1)
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(attention.flatten(1).numpy(), pooled, strict=True)]
    assert row["attention_correlation"] == pytest.approx(np.mean(each), abs=1e-6)


def test_the_interval_is_that_of_the_pooled_ratio(tmp_path):
    """Against the delta method: the standard error of a ratio of means."""
    predicted, truth, parts, _ = noise(400)
    frame = details(predicted, truth, parts)
    row = row_of(tmp_path, frame)
    error, share = frame["squared_error_lips"], frame["share_lips"]
    half = 1.96 * (error - row["mse_lips"] * share).std() / share.mean() / np.sqrt(400)
    assert row["mse_lips_high"] - row["mse_lips_low"] == pytest.approx(2 * half, rel=0.1)
    assert row["mse_lips_low"] < row["mse_lips"] < row["mse_lips_high"]


def test_pixels_are_pooled_not_images(tmp_path):
    """Ten lip pixels of error 4 in one image, 30 of error 100 in the other: 76, where the images' mean is 52."""
    truth, lips = torch.full((2, 3, 12, 12), 100, dtype=torch.uint8), torch.zeros(2, 12, 12, dtype=torch.bool)
    lips[0, 0, :10] = lips[1, :3, :10] = True
    predicted = truth + torch.tensor([2, 10], dtype=torch.uint8)[:, None, None, None]
    frame = details(predicted, truth, {"lips": lips})
    assert (frame["squared_error_lips"] / frame["share_lips"]).mean() == pytest.approx(52)
    assert row_of(tmp_path, frame)["mse_lips"] == pytest.approx(76)


@pytest.mark.parametrize("name", ["lips", "skin"])
def test_lips_or_skin_alone_have_no_contrast(name):
    _, truth, parts, _ = noise(2)
    assert not [column for column in details(truth, truth, {name: parts[name]}) if column.startswith("lip_")]


def test_what_no_image_has_is_empty(tmp_path):
    truth = picture(BRICK, SKIN)
    frame = details(tensor(truth, truth), tensor(truth, truth))
    assert not [name for name in frame if name.startswith(("share_", "squared_error_", "lip_"))]
    row = row_of(tmp_path, frame)
    assert row[["cool_recall", "lip_contrast", "attention_correlation"]].isna().all()
    text = (tmp_path / "details.md").read_text()
    assert "chroma slope" in text
    assert not [absent for absent in ("ool hues recalled", "Lip contrast", "Attention", "by part") if absent in text]


def test_seeds_are_averaged_by_image(tmp_path):
    first, truth, parts, attention = noise()
    second = noise(seed=1)[0]
    frames = [details(predicted, truth, parts, attention) for predicted in (first, second)]
    frames[1].loc[:9, "attention_correlation"] = np.nan
    run(tmp_path, {("plain", seed): frame for seed, frame in enumerate(frames)})
    row = pd.read_csv(tmp_path / "details.csv").set_index("model").loc["plain"]
    errors = [frame["squared_error_hair"].mean() / frame["share_hair"].mean() for frame in frames]
    assert row["mse_hair"] == pytest.approx(np.mean(errors))
    assert row["images"] == IMAGES
    slopes = [row_of(tmp_path / str(seed), frame)["chroma_slope"] for seed, frame in enumerate(frames)]
    assert row["chroma_slope"] == pytest.approx(np.mean(slopes))
    both = pd.concat(frames)["attention_correlation"]
    assert row["attention_correlation"] == pytest.approx(both.mean())  # of 110 values, 10 are absent
    assert "pooled over seeds and the pixels" in (tmp_path / "details.md").read_text()


def test_the_gain_over_the_base_is_paired(tmp_path):
    predicted, truth, parts, _ = noise()
    base = details(predicted, truth, parts)
    better = base.assign(squared_error_lips=base["squared_error_lips"] * 0.8)
    fake = run(tmp_path, {("plain", 0): base, ("refined", 0): better, ("other", 0): base}, {"refined": "plain"})
    table = pd.read_csv(tmp_path / "details.csv").set_index("model")
    gains = [
        "base_gain_lips_percent",
        "base_gain_lips_percent_low",
        "base_gain_lips_percent_high",
        "base_gain_skin_percent",
    ]
    assert table.loc["refined", gains].tolist() == pytest.approx([20, 20, 20, 0], abs=1e-5)
    assert table.loc[["plain", "other"], gains].isna().all(axis=None)
    last = (fake.folder.path / "details.md").read_text().partition("## MSE gain over the base, by part")[2]
    (line,) = [line for line in last.splitlines() if line.startswith("| refined")]
    assert "| plain | +0.0 [+0.0, +0.0] | +20.0 [+20.0, +20.0] |" in line
    assert "| other" not in last


def test_the_gain_is_over_the_seeds_that_both_have(tmp_path):
    predicted, truth, parts, _ = noise()
    base, other = details(predicted, truth, parts), details(noise(seed=1)[0], truth, parts)
    better = base.assign(squared_error_lips=base["squared_error_lips"] * 0.8)
    run(tmp_path, {("plain", 0): base, ("plain", 1): other, ("refined", 0): better}, {"refined": "plain"})
    table = pd.read_csv(tmp_path / "details.csv").set_index("model")
    assert table.loc["refined", "base_gain_lips_percent"] == pytest.approx(20)
    errors = [frame["squared_error_lips"].mean() / frame["share_lips"].mean() for frame in (base, other)]
    assert table.loc["plain", "mse_lips"] == pytest.approx(np.mean(errors))
    run(tmp_path / "none", {("plain", 1): other, ("refined", 0): better}, {"refined": "plain"})
    assert pd.read_csv(tmp_path / "none/details.csv")["base_gain_lips_percent"].isna().all()


def test_the_gain_over_the_parent_is_told_by_part_too(tmp_path):
    predicted, truth, parts, _ = noise()
    whole = details(predicted, truth, parts)
    less = whole.assign(squared_error_lips=whole["squared_error_lips"] * 1.1)
    run(tmp_path, {("net", 0): whole, ("net/less", 0): less})
    table = pd.read_csv(tmp_path / "details.csv").set_index("model")
    assert table.loc["net/less", ["parent", "parent_gain_lips_percent"]].tolist() == ["net", pytest.approx(-10)]
    assert table.loc["net", ["parent", "parent_gain_lips_percent", "base_gain_lips_percent"]].isna().all()
    text = (tmp_path / "details.md").read_text()
    assert "| net/less | net" in text.partition("## MSE gain over the parent, by part")[2]
    assert "over the base" not in text


def test_rows_have_the_order_of_the_comparison_and_ablations_come_last(tmp_path):
    predicted, truth, _, _ = noise()
    frame = details(predicted, truth)
    names = ["best/no-skip", "worst", "without", "best"]  # the later, the better
    run(tmp_path, {(name, 0): None if name == "without" else frame for name in names})
    assert list(pd.read_csv(tmp_path / "details.csv").model) == ["worst", "best", "best/no-skip"]
    text = (tmp_path / "details.md").read_text()
    assert text.startswith("# Details on portraits\n")
    assert "Protocol colorbench-1 (aaaabbbbcccc); data portraits" in text


def test_without_details_nothing_is_written_and_what_was_is_removed(tmp_path):
    predicted, truth, _, _ = noise()
    fake = run(tmp_path, {("plain", 0): details(predicted, truth)})
    files = [tmp_path / name for name in ("details.csv", "details.md")]
    assert all(file.exists() for file in files)
    fake.cell("plain", 0, np.full(IMAGES, 9.0))
    assert "etails" not in report.write(fake.folder)
    assert not any(file.exists() for file in files)


@pytest.mark.parametrize("damage", ["fewer", "keys"])
def test_details_of_other_images_are_refused(tmp_path, damage):
    predicted, truth, _, _ = noise()
    fake = run(tmp_path, {("plain", 0): details(predicted, truth)})
    frame = pd.read_parquet(fake.file("plain", 0, DETAILS))
    other = frame[:-1] if damage == "fewer" else frame.drop(columns="image")
    fake.change("plain", 0, {DETAILS: to_parquet(other)})
    with pytest.raises(UserError, match="details"):
        report.write(fake.folder)
