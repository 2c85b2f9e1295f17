"""Ablations of somebody else's models: `enhanced-unet` on bases of ever longer training.

An undertrained base makes any refiner look good; this shows how much of its gain is left as the base gets better:

    colorbench run --plugin examples/base_epochs.py --models enhanced-unet \\
        --ablations base-0.1-epoch,base-0.3-epoch,base-1-epoch,base-3-epochs,base-10-epochs,base-30-epochs
"""

from dataclasses import replace

from colorbench import hookimpl, spec


def trained_for(epochs, schedule):
    """The schedule for so many epochs; below 1, for one epoch of that share of the images."""

    def images(epoch, count):
        return range(round(min(1, epochs) * count))

    return lambda preset: [replace(stage, epochs=max(1, epochs), images=images) for stage in schedule(preset)]


@hookimpl
def register_models(register):
    base, refiner = spec("siggraph17"), spec("enhanced-unet")
    for epochs in (0.1, 0.3, 1, 3, 10, 30):
        length = f"{epochs} epoch{'s' if epochs > 1 else ''}"
        shown = length.replace(" ", "-")
        schedule = trained_for(epochs, base.schedule)
        register(replace(base.variant(shown), summary=f"siggraph17 trained for {length}", schedule=schedule))
        summary = f"enhanced-unet on siggraph17 trained for {length}"
        register(replace(refiner.variant(f"base-{shown}"), summary=summary, refines=f"siggraph17/{shown}"))
