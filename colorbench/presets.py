"""How large a run is: seconds for a test, minutes for a first table, or the paper's own scale."""

from colorbench.contract import Preset

PRESETS = {
    preset.name: preset
    for preset in (
        Preset("smoke", "seconds, to see that everything works; its numbers mean nothing",
               size=32, width=0.125, batch_size=8, epochs=1, train=32, val=8, test=8),
        Preset("first", "narrow networks at 32 px on 1,000 images: a first table in about five minutes on two cores",
               size=32, width=0.25, batch_size=16, epochs=4, train=1000, val=50, test=300),
        Preset("quick", "narrow networks at 64 px on 3,000 images: minutes with bf16, half an hour without",
               size=64, width=0.25, batch_size=16, epochs=6, train=3000, val=100, test=2000),
        Preset("paper", "full-width networks at 256 px with the paper's epochs and batch size",
               size=256, width=1.0, batch_size=8, epochs=30),
    )
}  # fmt: skip
