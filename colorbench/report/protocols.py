"""The same predictions under several protocols, a row per model and protocol: protocols.csv, and protocols.md."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

import numpy as np
import pandas as pd

from colorbench.protocol import SCORES
from colorbench.report import notes, statistics
from colorbench.report.markdown import MODEL, bullets, escaped, number, table, text
from colorbench.report.results import Results
from colorbench.runs.records import DONE, ProtocolRecord

CHANGE = "change_percent"
SMALL = 0.1  # dB, below which papers do not tell models apart


def summarize(results: Results, order: Sequence[str]) -> pd.DataFrame:
    """A row per model of `order` and protocol that its predictions were scored under; empty if there is none.

    Columns: `model`, `protocol`, `images`, `seeds`, the mean of each of `protocol.SCORES` over the images, each image's
    first averaged over the seeds, the ends of the interval of the PSNR, and `psnr_range`, max - min of the model's PSNR
    over its protocols in dB. In a series also `change_percent`, by how much the MSE differs from that under the first
    protocol, paired by image and seed, with the ends of its interval.
    """
    others, names = results.record.others, [protocol.name for protocol in _protocols(results)]
    rows = []
    for model, of_model in results.protocols.groupby("model") if len(results.protocols) else ():
        by_protocol = {
            str(protocol): {name: np.stack([of_seed[name] for _, of_seed in cells.groupby("seed")]) for name in SCORES}
            for protocol, cells in of_model.groupby("protocol")  # each (S, I)
        }
        for protocol, columns in by_protocol.items():
            means = {name: statistics.estimate([columns[name]]) for name in SCORES}
            seeds, images = columns["psnr"].shape
            row = {"model": model, "protocol": protocol, "images": images, "seeds": seeds}
            row |= {name: float(mean.value) for name, mean in means.items()} | means["psnr"].fields("psnr")
            first = by_protocol.get(names[0]) if others and others.varied else None
            if first and first["mse"].shape == columns["mse"].shape:
                row |= statistics.estimate([columns["mse"], first["mse"]], _change).fields(CHANGE)
            rows.append(row)
    frame = pd.DataFrame(rows) if rows else pd.DataFrame(columns=["model", "protocol", "psnr"])
    frame = frame[frame["model"].isin(order) & frame["protocol"].isin(names)]
    places = frame["model"].map([*order].index), frame["protocol"].map(names.index)
    frame = frame.iloc[np.lexsort(places[::-1])].reset_index(drop=True)
    if others and others.varied:
        values = {protocol.name: protocol.settings[others.varied] for protocol in others.protocols}
        frame.insert(2, others.varied, frame["protocol"].map(values))
    psnr = frame.groupby("model")["psnr"]
    return frame.assign(psnr_range=psnr.transform("max") - psnr.transform("min"))


def render(frame: pd.DataFrame, results: Results) -> str:
    """The whole protocols.md."""
    names = [name for name in (protocol.name for protocol in _protocols(results)) if name in {*frame["protocol"]}]
    wide = frame.pivot(index="model", columns="protocol", values="psnr").reindex(frame["model"].unique())
    wide["range"] = frame.groupby("model")["psnr_range"].first()
    psnr = [number(f"{escaped(name)}, dB", name, ",.2f") for name in names]
    more = [
        MODEL, text("protocol"), number("MSE", "mse", ",.1f"), number("PSNR, dB", "psnr", ",.2f", ends=True),
        number("SSIM", "ssim", ",.4f"), number("CIEDE2000", "ciede2000", ",.2f"),
        number("colorfulness", "colorfulness", ",.1f"),
    ]  # fmt: skip
    blocks = [
        f"# Protocols on {escaped(results.record.data.name)}",
        escaped(_headline(frame, {cell.model for cell in results.outcomes if cell.sees_truth})),
        "## PSNR of the same predictions",
        table(wide.reset_index(), [MODEL, *psnr, number("what the protocol alone is worth, dB", "range", ",.2f")]),
        "## All scores",
        table(frame, more),
        escaped(notes.made_with(results)),
        "## Notes",
        bullets([*_notes(frame, results), *notes.of_rows(frame.drop_duplicates("model"), results)]),
    ]
    return "\n\n".join(blocks) + "\n"


def _change(mse: np.ndarray, first: np.ndarray) -> np.ndarray:
    # Not the negated gain: no change would be -0.0, as if it were below 0.
    return 0.0 - statistics.gain(mse, first)


def _protocols(results: Results) -> list[ProtocolRecord]:
    return results.record.others.protocols if results.record.others else []


def _headline(frame: pd.DataFrame, bounds: Container[str]) -> str:
    """One sentence: how far apart the protocols are where they are farthest, of models if there are any."""
    finite = frame[np.isfinite(frame["psnr_range"])]
    models = finite[[model not in bounds for model in finite["model"]]]
    finite = finite if models.empty else models
    if finite.empty:
        return "There is no model with a finite PSNR under all protocols."
    rows = finite[finite["model"] == finite.loc[finite["psnr_range"].idxmax(), "model"]]
    low, high = (rows.loc[index] for index in (rows["psnr"].idxmin(), rows["psnr"].idxmax()))
    said = (
        f"By protocol alone the same predictions of {low['model']} have {low['psnr']:.2f} dB ({low['protocol']}) or "
        f"{high['psnr']:.2f} dB ({high['protocol']})"
    )
    differ = high["psnr"] - low["psnr"] >= SMALL
    return said + (": a figure of one protocol says nothing against one of another." if differ else ".")


def _notes(frame: pd.DataFrame, results: Results) -> Iterator[str]:
    own = results.record.protocol
    yield (
        f"Only the scoring half of each protocol is compared: crop, size and resize filter are those of the run, "
        f"{own.name}, and no network ran. Under all of another protocol its pictures would be other ones, too."
    )
    yield (
        "The pictures that the run has kept, in 8 bits, are scored; what its own protocol took from them is gone. "
        "Where a protocol makes a picture of L and ab in another way, it is made of their ab and the true L: the PSNR "
        "of an image then is off by up to 0.07 dB below 30 dB, 0.2 dB up to 45 dB, 0.8 dB above 50 dB."
    )
    if left := sorted({cell.model for cell in results.outcomes if cell.status == DONE} - {*frame["model"]}):
        yield f"Left out, as not the same since: {', '.join(left)}; `colorbench score` with --protocol adds them."
    for protocol in _protocols(results):
        there = {name: value for name, value in protocol.settings.items() if own.settings.get(name, value) != value}
        said = "; ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in there.items()
        )
        differs = f" Other than in the run: {said}." if said else ""
        yield f"{protocol.name}: {protocol.summary or 'of its own'}.{differs} Source: {protocol.source or 'not told'}."
