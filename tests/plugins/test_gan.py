"""What the GAN promises beyond the contract: the published sizes, and players that leave each other alone."""

import pytest
import torch
from colorbench_gan import Options, build, pretrained
from safetensors.torch import save_file
from toys import batch_of

from colorbench.presets import PRESETS


def network(width=0.125, size=32, **options):
    torch.manual_seed(0)
    return build(width=width, size=size, **options).train()


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_size_at_256_px_and_full_width():
    published = network(width=1.0, size=256)
    assert parameters(published.generator) == 54_409_858
    assert parameters(published.discriminator) == 2_765_633
    L, ab = torch.zeros(1, 1, 256, 256), torch.zeros(1, 2, 256, 256)
    assert published.discriminator(L, ab).shape == (1, 1, 30, 30)
    dropped = [level for level, up in enumerate(published.generator.ups) if isinstance(up[-1], torch.nn.Dropout)]
    assert dropped == [4, 5, 6]


@pytest.mark.parametrize(("size", "depth"), [(32, 5), (64, 6), (96, 5), (128, 7), (256, 8), (512, 8)])
def test_it_is_as_deep_as_the_images_allow(size, depth):
    assert len(network(size=size).generator.ups) == depth


@pytest.mark.parametrize("size", [32, 64, 96])
def test_it_trains_on_one_image_of_its_size(size):
    gan = network(size=size)
    assert gan(torch.full((1, 1, size, size), 50.0)).shape == (1, 2, size, size)


def test_a_side_that_does_not_halve_is_refused():
    with pytest.raises(ValueError, match="multiples of 32, got 36 x 64"):
        network()(torch.zeros(1, 1, 36, 64))


def test_the_generator_s_update_gives_the_discriminator_no_gradient():
    gan = network()
    updates = gan.updates(batch_of(2))
    assert next(updates).player == "discriminator"
    sum(next(updates).losses.values()).backward()
    assert all(p.grad is None for p in gan.discriminator.parameters())
    assert all(p.grad is not None for p in gan.generator.parameters())
    assert all(p.requires_grad for p in gan.discriminator.parameters())


def test_the_discriminator_s_update_gives_the_generator_no_gradient():
    gan = network()
    sum(next(gan.updates(batch_of(2))).losses.values()).backward()
    assert all(p.grad is None for p in gan.generator.parameters())


def test_dropout_acts_in_training_only():
    gan, L = network(size=64), torch.rand(2, 1, 64, 64) * 100
    with torch.no_grad():
        assert not torch.equal(gan(L), gan(L))
        assert torch.equal(gan.eval()(L), gan(L))


RESNETS = {"resnet18": 14_322_082, "resnet34": 24_430_242}  # the U-Nets of segmentation-models-pytorch 0.6, 1 -> 2


@pytest.mark.parametrize("name", RESNETS)
def test_a_resnet_generator_has_the_size_of_the_library_s(name):
    with torch.device("meta"):
        assert parameters(network(width=1.0, size=256, generator=name).generator) == RESNETS[name]


@pytest.mark.parametrize(("size", "depth"), [(16, 3), (32, 4), (64, 5), (96, 5), (256, 5)])
def test_a_resnet_generator_trains_on_one_image_of_its_size(size, depth):
    gan = network(size=size, generator="resnet18")
    assert len(gan.generator.decoder) == depth
    assert gan(torch.full((1, 1, size, size), 50.0)).shape == (1, 2, size, size)


def test_its_encoder_takes_the_weights_of_a_file_and_can_be_loaded_without_it(tmp_path):
    state = {key: torch.randn(value.shape) for key, value in encoder_of_rgb().items() if value.ndim}
    counts = {key: value for key, value in encoder_of_rgb().items() if not value.ndim}
    save_file(state | counts, file := tmp_path / "resnet18.safetensors")
    gan = network(generator="resnet18", encoder=file)
    kernel = gan.generator.encoder.conv1.weight
    torch.testing.assert_close(kernel[:, 0], state["conv1.weight"].sum(dim=1))
    assert torch.equal(gan.generator.encoder.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    network(generator="resnet18", encoder=None).load_state_dict(gan.state_dict())


def encoder_of_rgb():
    import timm

    return timm.create_model("resnet18").state_dict()


def test_a_file_of_another_network_and_one_for_the_unet_are_refused(tmp_path):
    save_file({"conv1.weight": torch.zeros(1)}, file := tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other\.safetensors holds no weights of this encoder of timm: it lacks bn1"):
        network(generator="resnet18", encoder=file)
    broken = encoder_of_rgb()
    broken["layer1.0.bn1.weight"][0] = torch.inf
    save_file(broken, file)
    with pytest.raises(ValueError, match=r"not finite in layer1\.0\.bn1\.weight"):
        network(generator="resnet18", encoder=file)
    with pytest.raises(ValueError, match="set generator to resnet18"):
        Options(encoder=file)


def test_the_first_stage_of_the_resnet_is_l1_alone():
    stage, _ = pretrained(PRESETS["first"])
    (update,) = network(generator="resnet18", l1_weight=2.0).updates(batch_of(2, **stage.settings))
    gan, batch = network(generator="resnet18"), batch_of(2)
    expected = 2 * (gan(batch.L) - batch.ab).abs().mean() / 110
    assert (update.player, [*update.losses]) == ("generator", ["l1"])
    torch.testing.assert_close(update.losses["l1"], expected)
