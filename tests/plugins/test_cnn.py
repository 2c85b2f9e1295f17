"""What the CNN promises beyond the contract."""

import pytest
import torch
from colorbench_cnn import Options, build
from toys import batch_of


def test_a_side_that_does_not_halve_is_refused():
    with pytest.raises(ValueError, match="cnn: the sides of an image must be multiples of 8, got 36 x 64"):
        build(width=0.125)(torch.zeros(1, 1, 36, 64))


def test_width_1_has_the_channels_of_eccv16():
    encoder = build().encoder
    assert [block[-1].num_features for block in encoder] == [64, 128, 256, 512, 512]


def test_its_options_are_the_channels_the_blocks_and_the_loss():
    encoder = build(width=0.5, channels=32, blocks=4).encoder
    assert [block[-1].num_features for block in encoder] == [16, 32, 64, 128, 128, 128, 128]
    assert [block[0].dilation[0] for block in encoder] == [1, 1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="blocks 0; at least 1"):
        Options(blocks=0)


def test_the_losses_are_of_ab_over_110():
    batch, losses = batch_of(2), {}
    for name in ("l2", "l1", "huber"):
        torch.manual_seed(0)
        network = build(width=0.125, loss=name).eval()
        with torch.no_grad():
            (update,) = network.updates(batch)
            error = (network(batch.L) - batch.ab) / 110
        losses |= update.losses
    torch.testing.assert_close(losses["l2"], error.square().mean())
    torch.testing.assert_close(losses["l1"], error.abs().mean())
    near = error.abs().clamp_max(1 / 110)  # within 1 Lab unit, half the square; beyond, along its tangent
    torch.testing.assert_close(losses["huber"], (near * (error.abs() - near / 2)).mean())
