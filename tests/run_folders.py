"""Run folders written by hand, as the harness writes them: records with checksums, and tables as Parquet."""

import io
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from colorbench import report
from colorbench.contract import Published
from colorbench.report import statistics
from colorbench.runs.folder import (
    DETAILS,
    LOSSES,
    SAMPLES,
    SCORES,
    SET_SCORES,
    RunFolder,
    add_files,
    sha256,
    to_parquet,
    write_aside,
    write_cell,
)  # fmt: skip
from colorbench.runs.records import (
    CellRecord,
    Code,
    DataRecord,
    Environment,
    PresetRecord,
    ProtocolRecord,
    Rate,
    RunRecord,
    Split,
    Timing,
    encode,
)  # fmt: skip

IMAGES = 200
HERE, ELSEWHERE = "e0000001", "e0000002"  # environments
ENVIRONMENT = Environment(
    python="3.11.9", system="Linux", packages={"colorbench": "0.1.0", "torch": "2.9.0", "numpy": None},
    cpu="AMD EPYC 9R14", cores=2, memory_gib=8, code=Code("0123456789ab", "fedcba9876543210", True), device="cpu",
    accelerators=[], precision="no", processes=1,
)  # fmt: skip
GPU = msgspec.structs.replace(ENVIRONMENT, accelerators=["NVIDIA H200"], device="cuda", precision="bf16")
STEADY = Rate(median=0.5, iqr=0.01, rounds=7)
FINISHED: dict[str, Any] = {"status": "done", "width": 0.25, "parameters": 1000, "seconds": 60.0, "images_seen": 9000}
MADE_FROM = "options", "stages", "weights", "base"  # what `cell` puts into the field `made_from`


class FakeRun:
    """A run folder in the making. Whoever changes `record` calls `save`."""

    def __init__(self, path: Path, models: list[str], seeds: tuple[int, ...] = (0, 1)) -> None:
        self.folder = RunFolder(path)
        self.record = self.record_of(models, seeds)
        self.save()

    @staticmethod
    def record_of(models: list[str], seeds: tuple[int, ...]) -> RunRecord:
        splits = {name: Split(IMAGES, 0, {}) for name in ("train", "test")}
        return RunRecord(
            protocol=ProtocolRecord("aaaabbbbcccc", "colorbench-1"),
            data=DataRecord("portraits", "ddddeeeeffff", splits),
            preset=PresetRecord("quick", size=64, width=0.25, batch_size=16, epochs=6),
            models=list(models), seeds=list(seeds), cells=[(model, seed) for model in models for seed in seeds],
            commands=["colorbench run"], environments={HERE: ENVIRONMENT, ELSEWHERE: GPU},
        )  # fmt: skip

    def save(self) -> None:
        self.folder.write(self.record)

    def ask(self, *cells: tuple[str, int]) -> None:
        """Let the record name these cells, too."""
        self.record.cells += cells
        self.record.models += [model for model, _ in cells if model not in self.record.models]
        self.save()

    def file(self, model: str, seed: int, name: str) -> Path:
        return self.folder.cell_dir(model, seed) / name

    def cell(
        self, model: str, seed: int, mse: np.ndarray | None = None, details: pd.DataFrame | None = None, **fields: Any
    ) -> CellRecord:
        """A finished cell with this MSE per image, or one with the fields of another.

        `details` have no keys; a column of `scores`, a dict, is added to the scores, or replaces one.
        """
        columns = fields.pop("scores", {})
        made_from = {"seed": seed} | {name: fields.pop(name) for name in MADE_FROM if name in fields}
        given = {"environment": HERE, "made_from": made_from, "status": "failed"} | (
            FINISHED if mse is not None else {}
        )
        cell = CellRecord(model=model, seed=seed, **given | fields)
        content = {}
        if mse is not None:
            scores = scores_of(model, seed, mse)
            shade = np.full((2, 64, 64, 3), int(mse.mean()) % 256, np.uint8)
            content = {SCORES: to_parquet(scores.assign(**columns)), SAMPLES: npz(predicted=shade)}
            if details is not None:
                keys = scores[["model", "seed", "image"]]
                content[DETAILS] = to_parquet(pd.concat([keys, details.reset_index(drop=True)], axis=1))
        return self.write(cell, content)

    def write(self, cell: CellRecord, content: dict[str, bytes]) -> CellRecord:
        """Write files of a cell, and its record with their checksums."""
        folder = self.folder.cell_dir(cell.model, cell.seed)
        add_files(folder, cell, content)
        write_cell(folder, cell)
        return cell

    def change(self, model: str, seed: int, content: dict[str, bytes] | None = None, **fields: Any) -> None:
        """Change a cell that is there, as if it had been made like that."""
        self.write(msgspec.structs.replace(self.folder.cell(model, seed), **fields), content or {})

    def losses(self, model: str, seed: int, stages: dict[str, int], components: tuple[str, ...]) -> None:
        rows = [
            (model, seed, stage, epoch, component, split, (i + 1) / (epoch + 1) + 0.1 * (split == "val"))
            for stage, epochs in stages.items()
            for epoch in range(1, epochs + 1)
            for i, component in enumerate(components)
            for split in ("train", "val")
        ]
        names = ["model", "seed", "stage", "epoch", "component", "split", "value"]
        self.change(model, seed, {LOSSES: to_parquet(pd.DataFrame(rows, columns=names))})

    def over_set(self, model: str, seed: int, **scores: tuple[float, float, float]) -> None:
        """Scores over the set of a cell, each with the ends of its interval."""
        rows = [(model, seed, metric, *values, IMAGES) for metric, values in scores.items()]
        names = ["model", "seed", "metric", "value", "low", "high", "images"]
        self.change(model, seed, {SET_SCORES: to_parquet(pd.DataFrame(rows, columns=names))})

    def samples(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
        content = npz(names=np.array(["00000.png", "00001.png"]), truth=pixels, grey=pixels // 2)
        write_aside(self.folder.path / SAMPLES, content)
        self.record.files[SAMPLES] = sha256(content)
        self.save()

    def timing(self, model: str, **fields: Any) -> None:
        given = {"environment": HERE, "batch": 16}
        if "failed" not in fields:
            given |= {"macs": 1_230_000_000, "peak_memory_mib": 512.0, "peak_memory_of": "process"}
            given |= {"infer_1": STEADY, "infer_n": STEADY}
        timing = Timing(model=model, **given | fields)
        write_aside(self.folder.path / f"timing/{model}.json", encode(timing))

    def frame(self, table: str = "comparison") -> pd.DataFrame:
        """The comparison.csv that the report writes, or another of its tables, by model."""
        report.write(self.folder)
        return pd.read_csv(self.folder.path / f"{table}.csv").set_index("model")

    def text(self, name: str) -> str:
        """What the report writes into one of its files."""
        report.write(self.folder)
        return (self.folder.path / name).read_text()


def scores_of(model: str, seed: int, mse: np.ndarray) -> pd.DataFrame:
    keys = {"model": model, "seed": seed, "image": [f"{i:05}.png" for i in range(len(mse))]}
    scores = {"mse": mse, "psnr": statistics.psnr(mse), "ssim": 1 - mse / 5000, "ciede2000": mse / 50}
    return pd.DataFrame(keys).assign(**scores, colorfulness=20.0, colorfulness_delta=-2.5)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def published(mse: float | None, note: str = "") -> Published:
    return Published("Table 2", mse=mse, psnr=24.673, ssim=0.926, note=note)
