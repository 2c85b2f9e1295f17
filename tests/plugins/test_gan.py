"""What the GAN promises beyond the contract: the published sizes, and players that leave each other alone."""

import pytest
import torch
from colorbench_gan.model import Options, Pix2Pix
from toys import batch_of


def network(width=0.125, size=32):
    torch.manual_seed(0)
    return Pix2Pix(Options(width, size)).train()


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
    assert Options(size=size).depth == depth


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
