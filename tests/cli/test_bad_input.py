"""Bad input gets one clear line that names the thing, the reason and the remedy, and nothing is lost."""

import os
from pathlib import Path

import pytest
from conftest import jpeg, one_line


def test_all_bad_names_are_told_at_once(colorbench, tmp_path):
    result = colorbench(
        "run", "--models", "cnnn,gann", "--preset", "quik", "--data", "portrait", "--out", tmp_path / "r"
    )
    assert result.exit_code == 2
    for hint in ("'cnnn' (did you mean 'cnn'?)", "'gann' (did you mean 'gan'?)", "'quick'?", "'portraits'?", "smoke"):
        assert hint in one_line(result)
    assert not (tmp_path / "r").exists()


def test_bad_weights_are_refused_before_anything_is_trained(colorbench, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"PK no weights")
    common = ("run", "--models", "grey,cnn", "--preset", "smoke", "--out", tmp_path / "run")
    result = colorbench(*common, "--weights", f"cnn={tmp_path / 'w.pth'}")
    assert (result.exit_code, list((tmp_path / "run").rglob("cell.json"))) == (2, [])
    assert "truncated" in one_line(result)
    refiner = colorbench(
        "run", "--models", "enhanced-unet", *common[3:], "--weights", f"enhanced-unet={tmp_path / 'w.pth'}"
    )
    assert "which a weight file does not hold" in one_line(refiner)
    stranger = colorbench(*common, "--weights", f"gan={tmp_path / 'w.pth'}")
    assert "unknown model that runs, or metric, for --weights 'gan'" in one_line(stranger)
    assert "write NAME=FILE" in one_line(colorbench(*common, "--weights", "w.pth"))
    assert "unknown model 'cnm' (did you mean 'cnn'?)" in one_line(colorbench(*common, "--weights", "cnm=w.pth"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no image"),
        ({f"{i}.jpg": b"broken %d" % i for i in range(30)}, "cannot be read"),
        ({f"{i}.jpg": jpeg(i, (1, 1)) for i in range(30)}, "1x1 pixels"),
        ({"notes.txt": b"hello"}, "holds no image"),
    ],
)
def test_data_without_a_usable_image_is_one_line(colorbench, tmp_path, files, message):
    data = tmp_path / "photos"
    data.mkdir()
    for name, content in files.items():
        (data / name).write_bytes(content)
    result = colorbench("run", "--models", "grey", "--data", data, "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert message in one_line(result)


def test_a_truncated_zip_is_one_line(colorbench, tmp_path, photo_zip):
    (tmp_path / "half.zip").write_bytes(photo_zip.read_bytes()[:2000])
    result = colorbench("run", "--data", tmp_path / "half.zip", "--preset", "smoke", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "neither a folder nor a zip" in one_line(result)


def test_another_setting_in_the_same_folder_is_refused(smoke_run, colorbench):
    result = colorbench("run", "--models", "grey", "--preset", "smoke", "--size", 48, "--out", smoke_run[1])
    assert result.exit_code == 2
    assert "preset.size (32 there, 48 here)" in one_line(result)


FULL = """
from pathlib import Path

write = Path.write_bytes

def full(file, content):
    if "weights.safetensors" in file.name:
        raise OSError(28, "No space left on device", file.name)
    return write(file, content)

Path.write_bytes = full
"""


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(fresh, monkeypatch):
    monkeypatch.setattr(Path, "write_bytes", Path.write_bytes)  # to have it back: the plugin is loaded here, too
    text = fresh.file.read_text()
    fresh.write(text + FULL)
    result = fresh("grey,tiny")
    assert result.exit_code == 2
    assert "the disk is full" in one_line(result)
    assert [file.parent.parent.name for file in fresh.run.rglob("cell.json")] == ["grey"]
    fresh.write(text)
    assert fresh("grey,tiny").exit_code == 0


def test_a_folder_that_becomes_unwritable_is_one_line(bench, monkeypatch):
    def denied(file, content):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("colorbench.runs.folder.write_aside", denied)
    result = bench("tiny")
    assert result.exit_code == 2
    assert "record.json: Permission denied; make it readable and writable" in one_line(result)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--width", "nan", "--width nan: give a number"),
        ("--width", "inf", "--width inf: give a number"),
        ("--epochs", 10**20, "not in the range"),
        ("--batch-size", 10**20, "not in the range"),
        ("--size", 10**20, "not in the range"),
        ("--out", "", "--out is empty"),
        ("--protocol", "", "--protocol is empty"),
        ("--again", "", "--again is empty"),
        ("--keep", "", "--keep is empty"),
        ("--ablations", "", "--ablations is empty"),
    ],
)
def test_what_no_record_can_hold_and_an_empty_word_are_refused_at_once(colorbench, tmp_path, option, value, message):
    result = colorbench("run", "--models", "grey", "--preset", "smoke", "--out", tmp_path / "run", option, value)
    assert result.exit_code == 2
    assert message in one_line(result)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments", [("score", "--data", ""), ("evaluate", "--data", "portraits", "--out", "")])
def test_an_empty_word_is_not_taken_for_a_default(colorbench, arguments, tmp_path):
    verb, *options = arguments
    result = colorbench(verb, tmp_path, *options)
    assert result.exit_code == 2
    assert f"{options[-2]} is empty" in one_line(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "absent"), "not a run folder"),
        (("evaluate", "absent", "--data", "portraits"), "not a run folder"),
        (("colorize", "absent.jpg", "--model", "grey", "--run", "absent"), "not a run folder"),
        (("colorize", "absent.jpg", "--model", "grey"), "either weights=FILE or run=FOLDER"),
        (("colorize", "absent.jpg", "--model", "gray", "--run", "absent"), "did you mean 'grey'?"),
        (("list", "models", "--plugin", "absent.py"), "cannot load the plugin absent.py"),
    ],
)
def test_other_verbs_refuse_bad_input_in_one_line(colorbench, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = colorbench(*arguments)
    assert result.exit_code == 2
    assert message in one_line(result)


def test_a_photo_that_cannot_be_read_is_one_line(colorbench, smoke_run, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for photo, message in ((tmp_path / "a.jpg", "not an image"), (tmp_path / "b.jpg", "No such file")):
        result = colorbench("colorize", photo, "--model", "grey", "--run", smoke_run[1])
        assert result.exit_code == 2
        assert message in one_line(result)
    os.mkfifo(tmp_path / "pipe.jpg")
    for photo, message in (("pipe.jpg", "pipe.jpg: it is a pipe or a device"), ("a\n.jpg", "a .jpg: No such file")):
        result = colorbench("colorize", tmp_path / photo, "--model", "grey", "--run", smoke_run[1])
        assert message in one_line(result)
        assert len(result.stderr.splitlines()) == 1
    (tmp_path / "a.jpg").write_bytes(jpeg(0))
    result = colorbench(
        "colorize", tmp_path / "a.jpg", "--model", "grey", "--run", smoke_run[1], "--out", tmp_path / "a.jpg" / "b.png"
    )
    assert result.exit_code == 2
    assert "cannot write" in one_line(result)
