"""The floor rows: no color, and the mean color of the training images."""

import torch
from colorbench_bounds.model import Grey, MeanColor
from test_models import batch_of


def test_grey_is_zero():
    assert not Grey()(batch_of(2).L).any()
    assert list(Grey().updates(batch_of(2))) == []


def test_mean_color_is_the_mean_of_what_it_was_shown():
    network, batches = MeanColor().train(), [batch_of(4), batch_of(3)]
    for batch in batches:
        assert list(network.updates(batch)) == []
    expected = torch.cat([batch.ab for batch in batches]).double().mean(dim=(0, 2, 3)).float()
    ab = network(batch_of(2).L)
    torch.testing.assert_close(ab, expected[:, None, None].expand_as(ab))


def test_mean_color_is_grey_until_it_has_counted():
    network = MeanColor().eval()
    list(network.updates(batch_of(2)))
    assert not network(batch_of(2).L).any()
