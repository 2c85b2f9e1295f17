"""Colorization as classification, with rare colors weighted by the color prior of the training split.

    colorbench run --plugin examples/classifier_prior.py --models classifier-prior --preset smoke

Source: Zhang, Isola, Efros, "Colorful Image Colorization" (ECCV 2016), sections 2.2 and 2.3, on a network of four
layers: ab in bins of 10 Lab units, class weights 1 / ((1 - lambda) p + lambda / Q) for the prior p over Q bins, and
the mean of the distribution, sharpened by a temperature T, as the answer. Their prior is smoothed and from ImageNet.
"""

from colorbench import ModelSpec, Stage, Update, hookimpl

STEP, BINS = 10, 23  # Lab units to a bin, bins to an axis: -110, -100 ... 110


def build(*, width, size, base, uniform, temperature):
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Classifier(nn.Module):
        measured = ("prior",)

        def __init__(self):
            super().__init__()
            c, last = max(8, round(128 * width)), BINS**2
            shapes = ((1, c, 2), (c, c, 2), (c, c, 1))  # channels in and out, stride: to H/4, as theirs
            hidden = [f for i, o, stride in shapes for f in (nn.Conv2d(i, o, 5, stride, padding=2), nn.ReLU())]
            self.layers = nn.Sequential(*hidden, nn.Conv2d(c, last, 1))
            grid = STEP * (torch.arange(BINS) - BINS // 2).float()
            self.register_buffer("centers", torch.cartesian_prod(grid, grid), persistent=False)  # (Q, 2)
            self.register_buffer("prior", torch.full((last,), 1 / last))  # (Q,), sums to 1

        def measure(self, batches):
            counts = sum(torch.bincount(self.bins(batch.ab).flatten(), minlength=BINS**2) for batch in batches)
            self.prior.copy_(counts / counts.sum())

        def bins(self, ab):  # (B, 2, H, W) -> (B, H, W), the number of the nearest center
            a, b = ((ab / STEP).round().long() + BINS // 2).clamp(0, BINS - 1).unbind(1)
            return a * BINS + b

        def forward(self, L):  # (B, 1, H, W) in 0..100 -> ab (B, 2, H, W) in Lab units, float32
            shares = (self.layers(L / 50 - 1).float() / temperature).softmax(dim=1)
            ab = torch.einsum("bqhw,qc->bchw", shares, self.centers).float()
            return F.interpolate(ab, L.shape[2:], mode="bilinear")

        def updates(self, batch):
            weights = 1 / ((1 - uniform) * self.prior + uniform / BINS**2)
            weights = weights / (self.prior * weights).sum()  # 1 in the mean over the training pixels
            logits = self.layers(batch.L / 50 - 1).float()
            losses = F.cross_entropy(logits, target := self.bins(batch.ab[:, :, ::4, ::4]), reduction="none")
            yield Update({"cross-entropy": (weights[target] * losses).mean()})

    return Classifier()


def schedule(preset):
    return [Stage("prior", measures=True), Stage("train", preset.epochs, learning_rate=1e-3)]


@hookimpl
def register_models(register):
    options = {"uniform": 0.5, "temperature": 0.38}
    register(ModelSpec("classifier-prior", "color classes, weighted by their prior", build, schedule, options))
