"""Skin tone, bleeding and palette against cases worked by hand and second implementations."""

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from skimage.color import lab2rgb, rgb2lab

from colorbench import plugins
from colorbench.metrics import Pair, score_batch
from colorbench.metrics.terms import Terms

SIDE = 24
BROWN, SKIN, SKY, LEAF = (45, 12, 15), (70, 15, 18), (60, 0, -40), (60, -35, 30)  # Lab


def computed(diagnostic, predicted, truth, parts=None):
    """The terms of a diagnostic, a row per image, and its statistics over all of them, by name."""
    spec = plugins.load().specs["diagnostic"].get(diagnostic) or pytest.skip(f"{diagnostic} is not installed")
    terms = Terms([spec])
    score_batch(Pair(tensor(predicted), tensor(truth), parts or {}), terms=terms)
    assert terms.failed == {}
    frame, means = terms.frame(), terms.frame().mean()
    values = {}
    for each in spec.statistics([*frame]):
        of = [means[term] for term in each.terms]
        with np.errstate(invalid="ignore"):
            values[each.name] = float(each.formula(*of) if each.formula else of[0] / of[1])
    return frame, values


def tensor(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def rgb(lab):
    return np.round(lab2rgb(lab) * 255).astype(np.uint8)


def halves(left, right):
    """Lab (SIDE, SIDE, 3): one color beside another."""
    lab = np.empty((SIDE, SIDE, 3))
    lab[:, : SIDE // 2], lab[:, SIDE // 2 :] = left, right
    return lab


def noise(seed, count=3, side=SIDE):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def left_half(count):
    mask = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    mask[..., : SIDE // 2] = True
    return {"skin": mask}


def test_skin_errors_by_tone_by_hand():
    # ITA of (45, 15) is atan(-5 / 15) = -18 degrees, brown; of (70, 18) it is atan(20 / 18) = 48, light.
    truth = [rgb(halves(BROWN, SKY)), rgb(halves(SKIN, SKY))]
    predicted = [rgb(halves((45, 12 + 3, 15 - 4), LEAF)), rgb(halves((70, 15, 18 - 2), LEAF))]
    frame, values = computed("skin-tone", predicted, truth, left_half(2))
    assert frame["skin_images_brown"].tolist() == [1, 0]
    assert frame["skin_images_light"].tolist() == [0, 1]
    assert values["skin_ab_error_brown"] == pytest.approx(5, abs=0.4)
    assert frame["skin_a_brown"][0] == pytest.approx(3, abs=0.4)
    assert frame["skin_b_brown"][0] == pytest.approx(-4, abs=0.4)
    # Chroma from hypot(12, 15) to hypot(15, 11), and from hypot(15, 18) to hypot(15, 16).
    assert frame["skin_chroma_brown"][0] == pytest.approx(18.60 - 19.21, abs=0.4)
    assert frame["skin_chroma_light"][1] == pytest.approx(21.93 - 23.43, abs=0.4)
    assert values["skin_worst_tone"] == values["skin_ab_error_brown"]
    assert values["skin_gap"] == pytest.approx(values["skin_ab_error_brown"] - values["skin_ab_error_light"])
    assert np.isnan(values["skin_ab_error_dark"])


def test_skin_errors_are_those_of_numpy():
    predicted, truth = noise(1), noise(2) // 2 + 90
    mask = torch.from_numpy(np.random.default_rng(3).random((3, SIDE, SIDE)) < 0.4)
    frame, _ = computed("skin-tone", predicted, truth, {"skin": mask})
    edges = {"very-light": 55, "light": 41, "intermediate": 28, "tan": 10, "brown": -30, "dark": -1e9}
    for i, inside in enumerate(mask.numpy()):
        (L, a, b), (_, pa, pb) = (rgb2lab(pictures[i])[inside].T for pictures in (truth, predicted))
        ita = np.degrees(np.arctan2(L.mean() - 50, b.mean()))
        tone = next(name for name, least in edges.items() if ita > least)
        expected = np.hypot(pa - a, pb - b), pa - a, pb - b, np.hypot(pa, pb) - np.hypot(a, b)
        found = frame.loc[i, [f"skin_{error}_{tone}" for error in ("ab", "a", "b", "chroma")]]
        assert found.tolist() == pytest.approx([values.mean() for values in expected], abs=0.01)
        assert frame.loc[i, [f"skin_images_{name}" for name in edges]].tolist() == [name == tone for name in edges]


def test_without_masks_skin_is_found_by_its_color_and_only_where_there_is_enough():
    spot = halves(SKY, SKY)
    spot[10:14, 10:14] = BROWN  # a twelfth of the ellipse
    truth = [rgb(halves(BROWN, SKY)), rgb(halves(SKY, LEAF)), rgb(spot)]
    frame, _ = computed("skin-tone", truth, truth)
    counted = frame[[name for name in frame if name.startswith("skin_images_")]].sum(axis=1)
    assert counted.tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("left", "right", "contrast", "sharpness"),
    [(SKY, LEAF, 1, 1), (LEAF, SKY, -1, np.nan), (SKY, SKY, 0, np.nan), ((60, 0, -20), (60, -17.5, 15), 0.5, 1)],
)
def test_contrast_across_an_edge_by_hand(left, right, contrast, sharpness):
    _, values = computed("bleeding", [rgb(halves(left, right))], [rgb(halves(SKY, LEAF))])
    assert values["edge_contrast"] == pytest.approx(contrast, abs=0.02)
    assert values["edge_sharpness"] == pytest.approx(sharpness, abs=0.05, nan_ok=True)


def test_blurred_colors_lose_contrast_near_the_edge_and_err_there():
    truth = halves(SKY, LEAF)
    blurred = truth.copy()
    middle = SIDE // 2
    for place, share in ((middle - 1, 0.25), (middle, 0.75)):  # the pixels beside the edge, a quarter of the way over
        blurred[:, place] = np.array(SKY) + share * (np.array(LEAF) - SKY)
    frame, values = computed("bleeding", [rgb(blurred)], [rgb(truth)])
    # At 24 px near is 1 pixel and far 2. Of the differences between pixels at a distance of 1 from a third, two cross
    # the edge, each with one end in a blurred pixel: 0.75 of the contrast. At a distance of 2 both ends are clear.
    assert values["edge_contrast"] == pytest.approx(0.75, abs=0.02)
    assert values["edge_sharpness"] == pytest.approx(0.75, abs=0.02)
    assert frame["interior_error"][0] < 0.05 * frame["edge_error"][0]
    assert frame["edge_share"][0] == pytest.approx(4 / SIDE)  # the two edge columns, and one more at each side


def test_bleeding_is_that_of_loops():
    predicted, truth = noise(4, 1), noise(5, 1)
    frame, _ = computed("bleeding", predicted, truth)
    guessed, true = (rgb2lab(pictures[0])[..., 1:] for pictures in (predicted, truth))
    near, found, close = {"squared": 0.0, "product": 0.0}, np.zeros((SIDE, SIDE), bool), np.zeros((SIDE, SIDE), bool)
    for transposed in (False, True):
        t, g = (planes.swapaxes(0, 1) if transposed else planes for planes in (true, guessed))
        across = {(y, x): t[y, x + 1] - t[y, x - 1] for y in range(SIDE) for x in range(1, SIDE - 1)}
        lengths = sorted([(d**2).sum() for d in across.values()] + [0.0] * (2 * SIDE))
        least = lengths[round(0.95 * SIDE**2) - 1]
        for (y, x), d in across.items():
            if (d**2).sum() >= max(least, 100) - 1e-3:
                found[(x, y) if transposed else (y, x)] = True
                near["squared"] += (d**2).sum() / SIDE**2
                near["product"] += d @ (g[y, x + 1] - g[y, x - 1]) / SIDE**2
    for y, x in np.argwhere(found):
        close[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2] = True
    squared = ((guessed - true) ** 2).sum(-1)
    expected = [near["squared"], near["product"], close.mean(), squared[close].sum() / SIDE**2]
    terms = ["edge_near_squared", "edge_near_product", "edge_share", "edge_error"]
    assert frame.loc[0, terms].tolist() == pytest.approx(expected, rel=1e-3)


def test_right_colors_in_wrong_places_are_an_error_of_placement_alone():
    _, values = computed("palette", [rgb(halves(LEAF, SKY))], [rgb(halves(SKY, LEAF))])
    assert values["palette_distance"] == pytest.approx(0, abs=1e-6)
    assert values["placement_error"] == pytest.approx(np.hypot(35, 70), abs=0.3) == values["ab_error"]


def test_a_shift_of_all_colors_is_an_error_of_the_palette_alone():
    _, values = computed("palette", [rgb(halves((60, 3, -36), (60, -32, 34)))], [rgb(halves(SKY, LEAF))])
    assert values["ab_error"] == pytest.approx(5, abs=0.4)
    assert values["palette_distance"] == pytest.approx(values["ab_error"], rel=1e-2)
    assert values["palette_percent"] == pytest.approx(100, abs=2)


def test_the_palette_distance_is_below_the_exact_one_and_that_below_the_error():
    predicted, truth = noise(6, 1, 12), noise(7, 1, 12)
    frame, _ = computed("palette", predicted, truth)
    guessed, true = (rgb2lab(pictures[0])[..., 1:].reshape(-1, 2) for pictures in (predicted, truth))
    costs = ((guessed[:, None] - true[None]) ** 2).sum(-1)
    exact = costs[linear_sum_assignment(costs)].mean()
    assert frame["palette_squared_distance"][0] <= exact + 1e-3
    assert frame["ab_squared_error"][0] == pytest.approx(np.diag(costs).mean(), rel=1e-3)
    directions = [np.array([np.cos(t), np.sin(t)]) for t in np.arange(8) * np.pi / 8]
    sliced = [((np.sort(guessed @ d) - np.sort(true @ d)) ** 2).mean() for d in directions]
    assert frame["palette_squared_distance"][0] == pytest.approx(2 * np.mean(sliced), rel=1e-3)
