"""The sheets of pictures: the pixels of the record, whole, at the place that their titles say."""

from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from run_folders import FakeRun

from colorbench import plugins
from colorbench.report import pictures
from colorbench.report.diagnostics import Details, View, illustrate
from colorbench.report.results import Results
from colorbench.runs.records import CellRecord

SIZE, SIDE = 64, 128  # of a picture, and as shown
GAP, GROUP_GAP, HEAD, FOOT = 4, 8, 25, 17
PARTS = ("skin", "lips", "eyes", "hair", "clothes", "background")


def noise(count: int, seed: int) -> np.ndarray:
    """Pictures of which no two pixels are alike, but by chance."""
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def samples(count: int) -> dict[str, np.ndarray]:
    return {"names": np.array([str(i) for i in range(count)]), "truth": noise(count, 98), "grey": noise(count, 99)}


def masked(count: int) -> dict[str, np.ndarray]:
    """Skin all over, eyes in rows 20 to 23, columns 10 to 29, lips in rows 40 to 43, columns 30 to 37."""
    parts = np.zeros((count, SIZE, SIZE), np.uint8)
    parts[:, 20:24, 10:30] = PARTS.index("eyes")
    parts[:, 40:44, 30:38] = PARTS.index("lips")
    return samples(count) | {"parts": parts, "part_names": np.array(PARTS)}


def model(count: int, seed: int, **arrays: np.ndarray) -> dict[str, np.ndarray]:
    return {"predicted": noise(count, seed), **arrays}


def worst(seed: int) -> dict[str, np.ndarray]:
    names = np.array(["a.png", "b.png", "c.png", "d" * 99 + ".png"])
    shown = {"worst": noise(4, seed), "worst_truth": noise(4, seed + 1)}
    return {**shown, "worst_name": names, "worst_mse": np.array([900.0, 800.0, 700.0, 600.0])}


def results(
    kept: dict[str, np.ndarray], models: dict[str, dict[str, np.ndarray]], refines: dict[str, str] | None = None
) -> Results:
    """A run with these arrays; a model called "bound" has no parameters."""
    done = [
        CellRecord(
            model=name, seed=0, status="done", refines=(refines or {}).get(name), parameters=0 if name == "bound" else 9
        )
        for name in models
    ]
    empty, record = pd.DataFrame(), FakeRun.record_of([*models], (0,))
    return Results(record, [*models], done, {}, empty, empty, empty, empty, {}, samples=kept, pictures=models)


def sheets(run: Results, models: list[str]) -> dict[str, bytes | None]:
    """The sheet of the first test images, and those of the plugin."""
    specs = [*plugins.load(only={"diagnostics"}).specs["diagnostic"].values()]
    view = View(run, pd.DataFrame(), pd.DataFrame(), models)
    figures, feet = illustrate(specs, view, Details(pd.DataFrame()), ["comparison", "details"])
    assert feet["comparison"].notes == []
    assert [*feet["comparison"].figures] == [name for name, content in figures.items() if content]
    return {"pictures.png": pictures.draw(run, models)} | figures


def drawn(name: str, run: Results) -> np.ndarray:
    content = sheets(run, list(run.pictures))[name]
    assert content is not None
    with Image.open(BytesIO(content)) as sheet:
        return np.asarray(sheet)


def shape(columns: int, rows: int, foot: int = 0, group: int = 0) -> tuple[int, int, int]:
    gaps = (columns - 1) // group * GROUP_GAP if group else 0
    return (HEAD + rows * (SIDE + foot + GAP), GAP + columns * (SIDE + GAP) + gaps, 3)


def tile(sheet: np.ndarray, row: int, column: int, foot: int = 0, group: int = 0) -> np.ndarray:
    top = HEAD + row * (SIDE + foot + GAP)
    left = GAP + column * (SIDE + GAP) + (column // group * GROUP_GAP if group else 0)
    return sheet[top : top + SIDE, left : left + SIDE]


def doubled(image: np.ndarray) -> np.ndarray:
    return image.repeat(2, 0).repeat(2, 1)


def zoomed(image: np.ndarray, top: int, left: int, side: int) -> np.ndarray:
    """The square crop at SIDE pixels: each shown pixel is the one that its upper left corner lies in."""
    places = np.array([i * side // SIDE for i in range(SIDE)])
    return image[top + places][:, left + places]


def test_the_pictures_are_input_models_truth_for_eight_images():
    run = results(samples(10), {"plain": model(10, 0), "truth": model(10, 1)})  # a model may have any name
    sheet = drawn("pictures.png", run)
    assert sheet.shape == shape(4, 8)
    columns = run.samples["grey"], *(run.pictures[name]["predicted"] for name in run.pictures), run.samples["truth"]
    for column, images in enumerate(columns):
        for row in (0, 7):
            np.testing.assert_array_equal(tile(sheet, row, column), doubled(images[row]))


def test_a_large_picture_is_shown_as_it_is():
    kept = {name: array.repeat(3, 1).repeat(3, 2) if array.ndim == 4 else array for name, array in samples(1).items()}
    sheet = drawn("pictures.png", results(kept, {"plain": {"predicted": kept["grey"]}}))
    np.testing.assert_array_equal(sheet[HEAD : HEAD + 192, -GAP - 192 : -GAP], kept["truth"][0])


def test_the_zooms_show_the_masks_parts_of_base_refiner_and_truth():
    run = results(masked(6), {"base": model(6, 0), "fine": model(6, 1)}, {"fine": "base"})
    sheet = drawn("refined.png", run)
    assert sheet.shape == shape(9, 4, group=3)
    columns = [run.pictures["base"]["predicted"], run.pictures["fine"]["predicted"], run.samples["truth"]]
    for i, images in enumerate(columns):
        np.testing.assert_array_equal(tile(sheet, 3, 3 * i, group=3), doubled(images[3]))
        # 20 pixels and a quarter around the center of the eyes, (22, 20); a quarter of the picture around (42, 34).
        eyes, lips = zoomed(images[3], 10, 8, 25), zoomed(images[3], 34, 26, 16)
        np.testing.assert_array_equal(tile(sheet, 3, 3 * i + 1, group=3), eyes)
        np.testing.assert_array_equal(tile(sheet, 3, 3 * i + 2, group=3), lips)


def test_a_zoom_stays_in_the_picture():
    kept = masked(1)
    kept["parts"][:] = 0
    kept["parts"][:, :2, 60:], kept["parts"][:, 62:, :2] = PARTS.index("eyes"), PARTS.index("lips")
    sheet = drawn("refined.png", results(kept, {"base": model(1, 0), "fine": model(1, 1)}, {"fine": "base"}))
    np.testing.assert_array_equal(tile(sheet, 0, 7, group=3), zoomed(kept["truth"][0], 0, 48, 16))
    np.testing.assert_array_equal(tile(sheet, 0, 8, group=3), zoomed(kept["truth"][0], 48, 0, 16))


def test_images_without_lips_or_eyes_or_with_several_faces_are_passed_over():
    kept = masked(4)
    parts = kept["parts"]
    parts[0][parts[0] == PARTS.index("lips")] = 0
    parts[1][parts[1] == PARTS.index("eyes")] = 0
    parts[2, 40:44, 5:9] = PARTS.index("lips")  # 25 columns from the others: a second face
    models = {"base": model(4, 0), "fine": model(4, 1)}
    sheet = drawn("refined.png", results(kept, models, {"fine": "base"}))
    assert sheet.shape == shape(9, 1, group=3)
    np.testing.assert_array_equal(tile(sheet, 0, 6, group=3), doubled(kept["truth"][3]))
    parts[3] = 0
    assert sheets(results(kept, models, {"fine": "base"}), [*models])["refined.png"] is None


def test_photographs_are_zoomed_at_fixed_places():
    run = results(samples(2), {"base": model(2, 0), "fine": model(2, 1)}, {"fine": "base"})
    sheet = drawn("refined.png", run)
    assert sheet.shape == shape(9, 2, group=3)
    np.testing.assert_array_equal(tile(sheet, 1, 7, group=3), zoomed(run.samples["truth"][1], 3, 11, 42))
    np.testing.assert_array_equal(tile(sheet, 1, 8, group=3), zoomed(run.samples["truth"][1], 34, 19, 26))


def test_each_refiner_has_a_block_of_its_own():
    models = {"base": model(1, 0), "fine": model(1, 1), "finer": model(1, 2)}
    sheet = drawn("refined.png", results(masked(1), models, {"fine": "base", "finer": "fine"}))
    below = shape(9, 1)[0] + 2 * GAP
    assert len(sheet) == below + shape(9, 1)[0]
    np.testing.assert_array_equal(tile(sheet[below:], 0, 0, group=3), doubled(models["fine"]["predicted"][0]))
    np.testing.assert_array_equal(tile(sheet[below:], 0, 3, group=3), doubled(models["finer"]["predicted"][0]))


def test_the_attention_is_brighter_where_there_is_more():
    levels = np.random.default_rng(0).permutation(256).astype(np.uint8).reshape(1, 16, 16).repeat(6, 0)
    run = results(samples(6), {"plain": model(6, 0), "attends": model(6, 1, attention=levels)})
    sheet = drawn("attention.png", run)
    assert sheet.shape == shape(3, 4)
    np.testing.assert_array_equal(tile(sheet, 3, 0), doubled(run.pictures["attends"]["predicted"][3]))
    np.testing.assert_array_equal(tile(sheet, 3, 1), doubled(run.samples["truth"][3]))
    seen = tile(sheet, 3, 2)
    np.testing.assert_array_equal(seen, seen[::8, ::8].repeat(8, 0).repeat(8, 1))
    luminance = seen[::8, ::8] @ [0.2126, 0.7152, 0.0722]
    assert np.corrcoef(luminance.ravel(), levels[3].ravel())[0, 1] > 0.95


def test_the_scenes_are_most_background_and_several_faces():
    kept = masked(6)
    for image, rows in ((1, 10), (2, 2), (3, 4), (5, 19)):
        kept["parts"][image, :rows] = PARTS.index("background")
    kept["parts"][5, 40:44, 5:9] = PARTS.index("lips")
    run = results(kept, {"base": model(6, 0), "fine": model(6, 1), "other": model(6, 2)}, {"fine": "base"})
    sheet = drawn("scenes.png", run)
    assert sheet.shape == shape(4, 3, FOOT)
    columns = kept["grey"], run.pictures["base"]["predicted"], run.pictures["fine"]["predicted"], kept["truth"]
    for row, image in enumerate((1, 3, 5)):
        for column, images in enumerate(columns):
            np.testing.assert_array_equal(tile(sheet, row, column, FOOT), doubled(images[image]))
    assert (sheet[HEAD + SIDE : HEAD + SIDE + FOOT, :SIDE] < 200).any()  # its caption


def test_the_scenes_show_every_model_where_none_refines():
    kept = masked(1)
    kept["parts"][0, :10] = PARTS.index("background")
    sheet = drawn("scenes.png", results(kept, {"plain": model(1, 0), "other": model(1, 1)}))
    assert sheet.shape == shape(4, 1, FOOT)


def test_the_worst_of_a_refiner_in_pairs():
    models = {"base": model(1, 0, **worst(10)), "fine": model(1, 1, **worst(20)), "last": model(1, 2, **worst(30))}
    sheet = drawn("worst.png", results(samples(1), models, {"fine": "base"}))
    assert sheet.shape == shape(4, 2, FOOT, group=2)
    for i in range(4):
        row, column = divmod(i, 2)
        output, truth = (tile(sheet, row, 2 * column + j, FOOT, group=2) for j in (0, 1))
        np.testing.assert_array_equal(output, doubled(models["fine"]["worst"][i]))
        np.testing.assert_array_equal(truth, doubled(models["fine"]["worst_truth"][i]))
    captions = sheet[HEAD + SIDE : HEAD + SIDE + FOOT]
    assert all((part < 200).any() for part in np.split(captions[:, : 4 * (SIDE + GAP)], 4, axis=1))
    assert (sheet[-FOOT - GAP :, -GAP:] == 255).all()  # the longest name is cut


def test_a_name_with_a_line_break_is_one_line():
    found = []
    for name in ("a\nb\x1b.png", "a b\\x1b.png"):
        kept = worst(20) | {"worst_name": np.array([name] * 4)}
        found.append(drawn("worst.png", results(samples(1), {"plain": model(1, 1, **kept)})))
    np.testing.assert_array_equal(*found)


def test_without_a_refiner_the_worst_are_those_of_the_best_that_learns():
    models = {name: model(1, i, **worst(10 * i)) for i, name in enumerate(("bad", "good", "bound"))}
    sheet = drawn("worst.png", results(samples(1), models))
    np.testing.assert_array_equal(tile(sheet, 0, 0, FOOT, group=2), doubled(models["good"]["worst"][0]))


@pytest.mark.parametrize("kept", [samples(3), masked(3)], ids=["photographs", "masks"])
def test_what_an_earlier_version_did_not_keep_is_not_drawn(kept):
    """It kept fewer pictures of a model, too, than there are samples now."""
    run = results(kept, {"plain": model(2, 0), "lost": {}}, {"plain": "lost"})
    found = sheets(run, ["plain", "lost", "failed"])
    assert [name for name, content in found.items() if content] == ["pictures.png"]
    assert drawn("pictures.png", run).shape == shape(3, 2)


def test_a_run_that_kept_nothing_has_no_sheet():
    assert set(sheets(results({}, {}), ["plain"]).values()) == {None}


def test_ablations_are_not_shown_beside_the_models():
    """The sheets hold the models that they are asked for, and no other."""
    models = {"base": model(1, 0), "fine": model(1, 1), "fine/less": model(1, 2)}
    run = results(masked(1), models, {"fine": "base", "fine/less": "base"})
    asked, everything = (sheets(run, names) for names in (["base", "fine"], [*models]))
    without = results(masked(1), {name: models[name] for name in ("base", "fine")}, {"fine": "base"})
    assert asked == sheets(without, ["base", "fine"]) != everything
