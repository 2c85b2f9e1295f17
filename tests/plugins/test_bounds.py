"""The floor rows: no color, and the mean color of the training images. The bounds, which see the truth."""

import pytest
import torch
from colorbench_bounds.model import BestConstant, Grey, MeanColor, TrueAb
from toys import batch_of

from colorbench.color import lab_to_rgb


def test_grey_is_zero():
    assert not Grey()(batch_of(2).L).any()
    assert list(Grey().updates(batch_of(2))) == []


def test_mean_color_is_the_mean_of_what_it_was_shown():
    network, batches = MeanColor(), [batch_of(4), batch_of(3)]
    for _ in range(2):  # it counts anew each time
        network.measure(iter(batches))
    expected = torch.cat([batch.ab for batch in batches]).double().mean(dim=(0, 2, 3)).float()
    ab = network(batch_of(2).L)
    torch.testing.assert_close(ab, expected[:, None, None].expand_as(ab))


def test_mean_color_is_grey_until_it_has_counted():
    network = MeanColor()
    assert list(network.updates(batch_of(2))) == []
    assert not network(batch_of(2).L).any()


def squared_error(L, ab, constant):
    rgb, truth = (lab_to_rgb(torch.cat((L, given.expand_as(ab)), dim=1)) for given in (constant, ab))
    return (rgb - truth).square().mean((1, 2, 3))


@pytest.mark.parametrize("scale", [0.1, 1, 3])  # of 3 most colors are clipped
def test_no_other_constant_is_better_than_the_best(scale):
    batch = batch_of(6)
    L, ab = batch.L, scale * batch.ab
    best = BestConstant()(L, ab)
    assert best.std((2, 3)).max() == 0
    best = best[:, :, :1, :1]
    least = squared_error(L, ab, best)
    assert (least < squared_error(L, ab, ab.mean((2, 3), keepdim=True))).all()
    for reach in (0.3, 2, 10, 40):
        for angle in torch.arange(0, 6.28, 0.4):
            other = best + reach * torch.stack((angle.cos(), angle.sin()))[:, None, None]
            assert (squared_error(L, ab, other) > 0.9995 * least).all()


def test_the_best_constant_of_a_grey_or_black_picture_is_a_number():
    L = torch.zeros(2, 1, 16, 16)
    L[1] = 50
    assert (BestConstant()(L, torch.zeros(2, 2, 16, 16)).abs() < 0.1).all()


def test_the_best_constant_of_a_large_picture_is_that_of_a_part_of_its_pixels():
    batch = batch_of(2)
    L, ab = (values.repeat_interleave(5, 2).repeat_interleave(5, 3) for values in (batch.L, batch.ab))
    assert L.shape[2] > 128
    torch.testing.assert_close(
        BestConstant()(L, ab)[..., 0, 0], BestConstant()(batch.L, batch.ab)[..., 0, 0], atol=0.3, rtol=0
    )


def test_the_true_ab_is_left_as_means_over_a_grid():
    ab = torch.randn(2, 2, 64, 64)
    assert torch.equal(TrueAb(64, 64)(ab[:, :1], ab), ab)
    one = TrueAb(1, 64)(ab[:, :1], ab)
    torch.testing.assert_close(one, ab.mean((2, 3), keepdim=True).expand_as(ab))
    halves = torch.zeros(1, 2, 64, 64)
    halves[..., 32:] = 8
    coarse = TrueAb(2, 64)(halves[:, :1], halves)
    assert coarse[..., :16].abs().max() == 0
    assert (coarse[..., 48:] == 8).all()
    assert TrueAb(32, 32).notes
    assert not TrueAb(32, 64).notes
