"""What the CNN promises beyond the contract."""

import pytest
import torch
from colorbench_cnn.model import Options, RegressionCNN


def test_a_side_that_does_not_halve_is_refused():
    with pytest.raises(ValueError, match="cnn: the sides of an image must be multiples of 8, got 36 x 64"):
        RegressionCNN(Options(width=0.125))(torch.zeros(1, 1, 36, 64))


def test_width_1_has_the_channels_of_eccv16():
    encoder = RegressionCNN(Options()).encoder
    assert [block[-1].num_features for block in encoder] == [64, 128, 256, 512, 512]
