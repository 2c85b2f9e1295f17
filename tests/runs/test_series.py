"""Trained models under protocols that differ in one field: the networks are asked again, nothing is trained."""

from dataclasses import replace

import msgspec
import pandas as pd
import pytest
import torch
from conftest import call, contents, jpegs, one_line
from toys import spec

from colorbench import DegradationSpec, UserError
from colorbench.api.series import parse_series
from colorbench.color import luminance
from colorbench.harness.predict import damage_of, inputs_of, predict
from colorbench.plugins import Registry
from colorbench.protocol import COLORBENCH, SCORES
from colorbench.runs.records import OtherProtocols, protocol_record
from colorbench.testing.pictures import smooth_images

CPU = torch.device("cpu")
STATED = """
from colorbench import Protocol, hookimpl

@hookimpl
def register_protocols(register):
    register(Protocol("noisy", "a test", degradation="noise:50"))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return jpegs(tmp_path_factory.mktemp("series") / "photos", 4)


def evaluate(bench, photos, *more):
    return call("evaluate", bench.run, "--data", photos, "--plugin", bench.file, *more)


def test_a_series_asks_the_trained_networks_under_each_value(bench, photos, tmp_path):
    weights = contents(bench.cell())
    result = evaluate(bench, photos, "--vary", "degradation=noise:5,noise:50,fading:0.8")
    assert result.exit_code == 0, result.stderr
    assert "## PSNR in dB by degradation fading" in result.stdout
    assert contents(bench.cell()) == weights
    folder = bench.run / "evaluations" / "photos-degradation"
    assert (folder / "series.png").exists()
    values = ["none", "noise:5", "noise:50", "fading:0.8"]
    table = pd.read_csv(folder / "protocols.csv", keep_default_na=False).set_index("model")
    assert table.loc["tiny", "degradation"].tolist() == table.loc["on-tiny", "degradation"].tolist() == values
    rows = pd.read_parquet(folder / "protocols.parquet").query("model == 'tiny'").set_index("protocol")
    own = pd.read_parquet(folder / "cells" / "tiny" / "seed-0" / "scores.parquet")
    assert rows.loc[COLORBENCH.name, list(SCORES)].to_numpy().tolist() == own[list(SCORES)].to_numpy().tolist()
    noisy, first = (rows.loc[name, "mse"].mean() for name in ("degradation=noise:50", COLORBENCH.name))
    row = table.loc["tiny"].query("degradation == 'noise:50'").iloc[0]
    assert row["change_percent"] == pytest.approx(100 * (noisy / first - 1), abs=1e-3)
    assert row["change_percent_low"] < row["change_percent"] < row["change_percent_high"]
    assert row["psnr_low"] < row["psnr"] < row["psnr_high"]
    assert "Of one seed, so that the intervals are over the images alone: " in result.stdout
    # The other way to the same numbers: an evaluation under a protocol that states the value.
    (tmp_path / "stated.py").write_text(STATED)
    assert evaluate(bench, photos, "--plugin", tmp_path / "stated.py", "--protocol", "noisy").exit_code == 0
    stated = pd.read_parquet(bench.run / "evaluations" / "photos-noisy" / "cells" / "tiny" / "seed-0/scores.parquet")
    assert rows.loc["degradation=noise:50", "mse"].tolist() == stated["mse"].tolist() != own["mse"].tolist()
    # What is there is kept; a cell that is made anew is asked alone.
    before = (folder / "protocols.parquet").read_bytes()
    again = evaluate(bench, photos, "--vary", "degradation=noise:5,noise:50,fading:0.8")
    assert again.exit_code == 0
    assert "asked with" not in again.stderr
    assert (folder / "protocols.parquet").read_bytes() == before


def test_further_values_join_a_series(bench, photos):
    folder = bench.run / "evaluations" / "photos-degradation"
    for text, asked in (("noise:50", 2), ("noise:5,fading:0.8", 2), ("noise:5.0", None)):  # the first, too, without any
        result = evaluate(bench, photos, "--vary", f"degradation={text}")
        assert result.exit_code == 0, result.stderr
        assert (f"asked with {asked} values" in result.stderr) if asked else ("asked with" not in result.stderr)
    table = pd.read_csv(folder / "protocols.csv", keep_default_na=False).set_index("model")
    assert table.loc["tiny", "degradation"].tolist() == ["none", "noise:5", "noise:50", "fading:0.8"]
    scored = call("score", folder, "--protocol", "all")
    assert scored.exit_code == 2
    assert "holds answers to several values of degradation" in one_line(scored)


@pytest.mark.parametrize("damage", ["edited", "absent"])
def test_a_damaged_series_is_asked_for_again(bench, photos, damage):
    file = bench.run / "evaluations" / "photos-hints" / "protocols.parquet"
    assert evaluate(bench, photos, "--vary", "hints=1").exit_code == 0
    before = file.read_bytes()
    file.unlink() if damage == "absent" else file.write_bytes(before[:-1])
    reported = call("report", file.parent)
    assert (reported.exit_code, "evaluate` with --vary makes it again" in one_line(reported)) == (2, True)
    again = evaluate(bench, photos, "--vary", "hints=1")
    assert again.exit_code == 0, again.stderr
    assert "is damaged or absent, and is made again" in again.stderr
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hints=0", "--vary hints=0 has no value but 0, as without it; give others"),
        ("size=16,32", "unknown field for --vary 'size' (did you mean 'hint_size'?); there is: hints, "),
        ("hints=", "--vary hints= has no values; say hints=VALUE,VALUE"),
        ("hints=1,-2,x", "--vary hints=1,-2,x: -2, x is not a whole number; say hints=1,10"),
        ("hints=" + "9" * 5000, "is not a whole number; say hints=1,10"),
        (
            "hint_places=corner",
            "unknown hint_places in protocol hint_places=corner: 'corner'; there is: normal, uniform",
        ),
        ("degradation=blurr:2", "unknown degradation 'blurr' (did you mean 'blur'?)"),
        ("degradation=blur:x", "the protocol's degradation cannot be 'blur:x'; give NAME:STRENGTH, such as 'blur:2'"),
        ("degradation=blur:0", "the protocol's degradation cannot be 'blur:0'"),
    ],
)
def test_a_series_that_cannot_be_is_one_line_before_anything_is_done(bench, photos, text, said):
    before = contents(bench.run)
    result = evaluate(bench, photos, "--vary", text)
    assert result.exit_code == 2
    assert said in one_line(result)
    assert contents(bench.run) == before


def test_a_degradation_without_a_strength_has_its_own(registry):
    assert parse_series("degradation=blur:3,jpeg", registry) == (
        "degradation",
        ["blur:3", "jpeg:25", "jpeg:70", "jpeg:90"],
    )
    every = parse_series("degradation=all", registry)[1]
    assert len(every) == sum(len(each.strengths) for each in registry.specs["degradation"].values())
    assert parse_series("degradation=all,noise", registry)[1] == every
    assert parse_series("degradation=noise:5,noise:5.0", registry)[1] == ["noise:5"]
    assert parse_series("degradation=noise:0.1234567", registry)[1] == ["noise:0.1234567"]
    assert parse_series("hints=0,10,10", registry) == ("hints", [0, 10])


def test_the_network_alone_sees_the_damage(registry):
    protocol, images = replace(COLORBENCH, size=32, degradation="fading:1"), smooth_images(3, 32)
    truth = torch.from_numpy(images.pixels).permute(0, 3, 1, 2)
    damaged = damage_of(protocol, registry)
    L, _ = inputs_of(spec("toy"), images, slice(3), CPU, protocol, damaged)
    assert (L == 50).all()

    class Tinted(torch.nn.Module):
        def forward(self, L):
            return torch.cat((L, L), dim=1) / 10  # of 50: ab 5, which all of these pictures can have

    (predicted,) = predict(Tinted(), spec("toy"), images, CPU, protocol, damaged)
    off = luminance(predicted.pictures) - luminance(truth)
    assert off.abs().mean() < 0.3  # the true L, but for rounding


def test_what_is_damaged_changes_no_training_and_no_id_of_before():
    damaged = replace(COLORBENCH, degradation="blur:2")
    assert damaged.automatic == COLORBENCH
    assert damaged.scoring_id == COLORBENCH.scoring_id
    assert damaged.input_id != COLORBENCH.input_id
    assert COLORBENCH.id == "a1d172c07ec1"
    with pytest.raises(UserError, match="degradation cannot be 'blur:inf'"):
        replace(COLORBENCH, degradation="blur:inf")


@pytest.mark.parametrize("given", [lambda rgb: rgb, lambda rgb: luminance(rgb) + 60, lambda rgb: None])
def test_what_is_no_luminance_is_refused(given):
    registry = Registry()
    registry.specs["degradation"]["odd"] = DegradationSpec("odd", "", lambda rgb, *_: given(rgb), (1,))
    images = smooth_images(1, 32)
    damaged = damage_of(replace(COLORBENCH, degradation="odd:1"), registry)
    with pytest.raises(ValueError, match=r"degradation odd gave .*; L is due, float32 \(1, 1, 32, 32\) in 0..100"):
        damaged(torch.from_numpy(images.pixels).permute(0, 3, 1, 2), [""])


def test_a_forged_series_of_a_field_that_its_protocols_lack_is_refused():
    with pytest.raises(ValueError, match="a protocol of the series has no depth"):
        msgspec.convert(
            msgspec.to_builtins(OtherProtocols([protocol_record(COLORBENCH)], {})) | {"varied": "depth"}, OtherProtocols
        )
