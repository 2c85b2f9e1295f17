"""Bits flipped in the files of a finished run: the same tables, or one line; never a traceback or other numbers."""

import random
import shutil

import pytest
from conftest import Bench, call

ROUNDS, BITS = 4, 3
TABLES = ("comparison.csv", "comparison.md", "details.csv", "details.md")
AGAIN = 8  # of how many cases the run is asked for again, too


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(finished.folder, folder, dirs_exist_ok=True)
    return Bench(folder)


def tables(bench):
    return {name: (bench.run / name).read_bytes() for name in TABLES}


def flipped(content, rng):
    """The content with some of its bits flipped, at least one."""
    damaged = bytearray(content)
    for place in rng.sample(range(8 * len(content)), min(BITS, 8 * len(content))):
        damaged[place // 8] ^= 1 << place % 8
    return bytes(damaged)


def check(result, bench, due, case):
    assert "Traceback" not in result.output, case
    if result.exit_code == 0:
        assert tables(bench) == due, case
    else:
        lines = result.stderr.strip().splitlines()
        assert result.exit_code == 2, case
        assert lines, case
        assert all(line.startswith("colorbench: ") for line in lines), case
        assert len(lines) == 1, case


def test_flipped_bits_never_give_other_numbers(run, monkeypatch):
    # The figures are most of a report's time, and no input to anything.
    monkeypatch.setattr("colorbench.report.pictures.draw", lambda *_: None)
    monkeypatch.setattr("colorbench.report.figures.losses", lambda *_: None)
    rng, cases, refused = random.Random(0), 0, 0
    call("report", run.run)
    due = tables(run)
    files = sorted(file for file in run.run.rglob("*") if file.is_file() and file.stat().st_size)
    files = [file for file in files if file.name not in TABLES and file.suffix not in (".png", ".lock")]
    assert len(files) >= 15
    for file in files:
        content = file.read_bytes()
        for _ in range(ROUNDS if file.suffix in (".png", ".zip") else 2 * ROUNDS):
            file.write_bytes(flipped(content, rng))
            result = call("report", run.run)
            check(result, run, due, f"{file}, case {cases}")
            cases, refused = cases + 1, refused + (result.exit_code == 2)
        file.write_bytes(content)
    print(f"{cases} reports of a run with flipped bits in one of {len(files)} files, {refused} refused")
    assert cases >= 100
    assert refused > cases / 2


def test_a_run_asked_for_again_mends_or_refuses_flipped_bits(finished, tmp_path):
    rng, mended, files = random.Random(1), 0, sorted(file for file in finished.run.rglob("*") if file.is_file())
    files = [file.relative_to(finished.run) for file in files if file.suffix not in (".lock", ".png")]
    for case, name in enumerate(rng.sample(files, AGAIN)):
        bench = Bench(tmp_path / str(case))
        shutil.copytree(finished.folder, bench.folder)
        if not (content := (bench.run / name).read_bytes()):
            continue
        (bench.run / name).write_bytes(flipped(content, rng))
        result = bench("tiny,on-tiny")
        assert "Traceback" not in result.output, name
        assert result.exit_code in (0, 2), (name, result.stderr)
        if result.exit_code == 0:
            assert tables(bench) == tables(finished), name
            mended += 1
        else:
            assert result.stderr.strip().splitlines()[-1].startswith("colorbench: "), name
    assert mended >= 2
