"""A diagnostic in one file: the MSE by the hue of the truth, as a table in details.md and as a figure.

colorbench run --models all --plugin examples/error_by_hue.py
"""

from colorbench import DiagnosticSpec, Statistic, hookimpl

WIDTH = 30  # degrees of hue in the ab plane: 0 is pink, 90 yellow, 180 green, 270 blue
HUES = range(0, 360, WIDTH)


def terms(pair):  # by hue, the share of an image's pixels that have it, and their part of the image's MSE
    from colorbench.metrics import mean

    _, a, b = pair.lab[1]
    hue, colored, error = b.atan2(a).rad2deg() % 360, pair.chroma[1] > 10, pair.squared_error.mean(1)
    inside = {start: (colored & (start <= hue) & (hue < start + WIDTH)).float() for start in HUES}
    pixels = {f"pixels_hue_{start}": mean(mask) for start, mask in inside.items()}
    return pixels | {f"error_hue_{start}": mean(error * mask) for start, mask in inside.items()}


def draw(view):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="hue of the truth, degrees", ylabel="MSE")
    for _, row in view.details.iterrows():
        axes.plot(HUES, row[[f"mse_hue_{start}" for start in HUES]], label=row["model"])
    axes.legend(fontsize=8)
    return figure if len(view.details) else None


@hookimpl
def register_diagnostics(register):
    columns = [Statistic(f"mse_hue_{h}", f"{h}°", (f"error_hue_{h}", f"pixels_hue_{h}"), form=",.0f") for h in HUES]
    note = f"MSE by hue: over the pixels with a chroma above 10 and a hue of so many degrees to {WIDTH} more."
    what = "the MSE by the hue of the truth"
    register(DiagnosticSpec("error-by-hue", what, terms, columns, "MSE by hue", draw=draw, caption=what, notes=[note]))
