"""`colorbench plan` says what a run would do, and changes nothing."""

import pytest
from conftest import contents


def rows(result):
    """The printed cells: (model, seed) -> the rest of the line."""
    lines = [line.split() for line in result.stdout.splitlines()[:-1]]
    return {(model, int(seed)): " ".join(rest) for model, _, seed, *rest in lines}


def test_done_and_missing_cells(bench):
    before = contents(bench.run)
    result = bench.plan("tiny,on-tiny", "--seed", 0, "--seed", 1)
    assert result.exit_code == 0, result.stderr
    said = rows(result)
    assert said["tiny", 0].startswith("done")
    assert said["on-tiny", 1].startswith("missing")
    assert "on disk" in result.stdout.splitlines()[-1]
    assert contents(bench.run) == before


def test_a_stale_cell_says_why_and_the_status_is_1(bench):
    bench.change("learning_rate=0.001", "learning_rate=0.1")
    before = contents(bench.run)
    result = bench.plan()
    assert result.exit_code == 1
    assert "stale" in rows(result)["tiny", 0]
    assert "stages[0].learning_rate 0.001 -> 0.1; code of plugin tiny.py" in rows(result)["tiny", 0]
    assert rows(bench.plan("tiny", "--keep", "tiny"))["tiny", 0].startswith("kept")
    again = bench.plan("tiny", "--again", "tiny")
    assert (again.exit_code, rows(again)["tiny", 0].split()[0]) == (0, "missing")
    assert contents(bench.run) == before


def test_scores_under_another_key_are_to_be_made_again(bench):
    (bench.folder / "metric.py").write_text(
        "from colorbench import MetricSpec, hookimpl\n\n\n@hookimpl\ndef register_metrics(register):\n"
        "    register(MetricSpec('red', 'a test', lambda p, t: p[:, 0].float().mean((1, 2))))\n"
    )
    result = bench.plan("tiny", "--plugin", bench.folder / "metric.py")
    assert result.exit_code == 0, result.stderr
    assert rows(result)["tiny", 0].startswith("to be scored")


def test_an_unfinished_cell_says_how_far_it_is(fresh):
    """Two stages of 20 steps of 0.05 s; a checkpoint is written each second, and the last before step 34."""
    fresh.change(
        "yield Update",
        """import time
            time.sleep(0.05)
            self.steps = getattr(self, "steps", 0) + self.training
            if self.steps == 34:
                raise RuntimeError("out of memory")
            yield Update""",
    )
    fresh.change("[Stage(", "[Stage('first', 5), Stage(")
    fresh.change('"train", 1,', '"train", 5,')
    failed = fresh()
    assert failed.exit_code == 1, failed.stderr
    assert "out of memory" in failed.stderr
    result = fresh.plan()
    assert result.exit_code == 0, result.stderr
    assert "resumable" in rows(result)["tiny", 0]
    assert "stage 2 epoch" in rows(result)["tiny", 0]


def test_nothing_is_made_where_nothing_is(fresh):
    result = fresh.plan("tiny,on-tiny")
    assert result.exit_code == 0, result.stderr
    assert set(rows(result)) == {("tiny", 0), ("on-tiny", 0)}
    assert not fresh.run.exists()


def test_what_is_wrong_with_a_model_is_said_and_the_status_is_1(fresh):
    fresh.change("return Network()", "raise ValueError('no table')")
    result = fresh.plan()
    assert result.exit_code == 1
    assert "ValueError: no table" in rows(result)["tiny", 0]
    assert not fresh.run.exists()


@pytest.mark.parametrize("more", [("--again", "tinny"), ("--keep", "tinny")])
def test_a_misspelt_model_is_named(bench, more):
    result = bench.plan("tiny", *more)
    assert (result.exit_code, "did you mean 'tiny'?" in result.stderr) == (2, True)
