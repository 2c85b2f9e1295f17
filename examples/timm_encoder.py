"""A colorization U-Net on an encoder of timm, trained as such encoders are: AdamW, warm-up, clipping, a lower rate.

    colorbench run --plugin examples/timm_encoder.py --models timm-encoder --preset smoke

The encoder starts from random weights, or from those in the file of the option `weights`: a state dict of the same
encoder, with or without its classifier, as safetensors. Nothing is downloaded.
"""

from colorbench import ModelSpec, Stage, Update, hookimpl


def build(*, width, size, base, encoder, weights):
    import timm
    import torch
    import torch.nn.functional as F
    from safetensors.torch import load_file
    from torch import nn

    class TimmUNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = timm.create_model(encoder, pretrained=False, features_only=True)
            if weights:
                state = load_file(weights)
                self.encoder.load_state_dict({key: state[key] for key in self.encoder.state_dict()})
            *skips, deepest = self.encoder.feature_info.channels()  # of the maps at 1/2, 1/4 ... 1/32 of the side
            channels = [max(8, round(width * count)) for count in skips]
            inputs = [deepest, *channels[:0:-1]]
            self.decoder = nn.ModuleList(
                nn.Sequential(nn.Conv2d(below + skip, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU())
                for below, skip, out in zip(inputs, skips[::-1], channels[::-1], strict=True)
            )
            self.to_ab = nn.Conv2d(channels[0], 2, 1)

        def forward(self, L):  # (B, 1, H, W) in 0..100 -> ab (B, 2, H, W) in Lab units, float32
            *skips, x = self.encoder((L / 50 - 1).expand(-1, 3, -1, -1))  # an RGB encoder sees a grey image
            for block, skip in zip(self.decoder, skips[::-1], strict=True):
                x = block(torch.cat((F.interpolate(x, skip.shape[2:]), skip), dim=1))
            ab = F.interpolate(self.to_ab(x).float(), L.shape[2:], mode="bilinear")
            return 110 * ab.tanh()

        def updates(self, batch):
            yield Update({"l1": F.l1_loss(self(batch.L), batch.ab) / 110})

    return TimmUNet()


def schedule(preset):
    return [
        Stage(
            "train",
            preset.epochs,
            learning_rate=1e-3,
            warm_up=0.05,  # of the steps
            optimizer="adamw",
            weight_decay=0.05,
            clip=1.0,
            rates={"encoder": 0.1},  # 1e-4: its weights may be good already
        )
    ]


@hookimpl
def register_models(register):
    options = {"encoder": "resnet18", "weights": None}
    register(ModelSpec("timm-encoder", "a U-Net on an encoder of timm", build, schedule, options))
