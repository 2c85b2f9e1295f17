"""Color hints: a protocol that gives ten of them for each image, and a small model that takes them.

    colorbench run --plugin examples/hints.py --models hinted,cnn --protocol hints-10

The table says who was given what: `hinted` the hints, `cnn`, which takes none, L alone.
"""

from colorbench import ModelSpec, Protocol, Stage, Update, hookimpl

MOST = 20  # hints of an image in training, where the model draws its own
SIDE = 4  # pixels


def build(*, width, **_):
    import torch
    from torch import nn

    from colorbench.hints import reveal

    def random_hints(ab):
        """None to MOST patches of each image, anywhere: ab (B, 2, H, W) in Lab units -> (B, 3, H, W)."""
        images = torch.arange(len(ab)).repeat_interleave(torch.randint(MOST + 1, (len(ab),)))
        corners = torch.randint(min(ab.shape[2:]) - SIDE + 1, (len(images), 2))
        return reveal(ab, [(*place, SIDE) for place in torch.column_stack((images, corners)).tolist()])

    class Hinted(nn.Module):
        def __init__(self):
            super().__init__()
            inner, layers = max(8, round(64 * width)), []
            for dilation in (1, 2, 4, 8, 4):
                layers += [nn.Conv2d(inner if layers else 4, inner, 3, padding=dilation, dilation=dilation), nn.ReLU()]
            self.layers = nn.Sequential(*layers, nn.Conv2d(inner, 2, 1))

        def forward(self, L, hints=None):  # (B, 1, H, W) in 0..100; ab in Lab units and a mask, (B, 3, H, W), or None
            hints = L.new_zeros(len(L), 3, *L.shape[2:]) if hints is None else hints
            ab, mask = hints.split((2, 1), dim=1)
            return 110 * self.layers(torch.cat((L / 50 - 1, ab / 110, mask), dim=1)).float()

        def updates(self, batch):
            ab = self(batch.L, random_hints(batch.ab))
            yield Update({"l1": (ab - batch.ab).abs().mean() / 110})

    return Hinted()


def schedule(preset):
    return [Stage("train", preset.epochs, learning_rate=1e-3)]


@hookimpl
def register_models(register):
    register(ModelSpec("hinted", "dilated convolutions that take hints", build, schedule, takes=("hints",)))


@hookimpl
def register_protocols(register):
    summary = "as colorbench-1, with the true ab of ten points for the models that take hints"
    register(Protocol("hints-10", summary, "this file", hints=10, hint_size=SIDE))
