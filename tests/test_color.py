"""RGB <-> Lab against scikit-image."""

import numpy as np
import pytest
import torch
from skimage.color import lab2rgb, rgb2lab

from colorbench import UserError, lab_to_rgb, rgb_to_lab
from colorbench.color import bytes_to_lab, luminance, recombine


@pytest.fixture
def rgb():
    """Noise, and every corner and face of the RGB cube with the dark end where the formulas change branch."""
    levels = torch.tensor([0.0, 0.001, 0.0031, 0.04, 0.0405, 0.1, 0.5, 1.0])
    grid = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, 8, 64)
    noise = torch.rand(3, 56, 64, generator=torch.Generator().manual_seed(0))
    return torch.cat((grid, noise), dim=1)[None]


def test_rgb_to_lab_agrees_with_scikit_image(rgb):
    expected = rgb2lab(rgb[0].permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(rgb_to_lab(rgb)[0].permute(1, 2, 0).numpy(), expected, atol=1e-3)


def test_lab_of_bytes_agrees_with_scikit_image_from_black_to_white():
    levels = torch.arange(256, dtype=torch.uint8)
    noise = torch.randint(0, 256, (3, 63, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    pictures = torch.cat((levels.expand(3, 1, 256), noise, noise // 8), dim=1)[None]
    expected = rgb2lab(pictures[0].permute(1, 2, 0).numpy())
    lab = torch.cat(bytes_to_lab(pictures)).permute(1, 2, 0)
    assert lab.dtype == torch.float32
    np.testing.assert_allclose(lab.numpy(), expected, atol=1e-4)
    torch.testing.assert_close(luminance(pictures)[0, 0], lab[..., 0], atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_lab_to_rgb_agrees_with_scikit_image_outside_the_gamut_too():
    lab = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    lab = lab * torch.tensor([100.0, 256, 256])[:, None, None] - torch.tensor([0.0, 128, 128])[:, None, None]
    expected = lab2rgb(lab.permute(1, 2, 0).double().numpy())
    np.testing.assert_allclose(lab_to_rgb(lab).permute(1, 2, 0).numpy(), expected, atol=1e-3)


def test_there_and_back(rgb):
    torch.testing.assert_close(lab_to_rgb(rgb_to_lab(rgb)), rgb, atol=1e-4, rtol=0)


def test_gradients_are_finite_at_black_and_white(rgb):
    extremes = torch.cat((rgb, torch.zeros_like(rgb), torch.ones_like(rgb))).requires_grad_()
    lab_to_rgb(rgb_to_lab(extremes)).sum().backward()
    assert extremes.grad.isfinite().all()
    assert extremes.grad[0].abs().sum() > 0


@pytest.mark.parametrize("convert", [rgb_to_lab, lab_to_rgb])
@pytest.mark.parametrize("image", [torch.zeros(3, 4), torch.zeros(1, 1, 4, 4), torch.zeros(3, 4, 4).byte(), None])
def test_what_is_no_picture_is_refused_in_one_line(convert, image):
    with pytest.raises(UserError, match=r"^(rgb|lab) is .*; give (a tensor of )?floats .*\.\.\., 3, H, W\)$"):
        convert(image)


def test_the_gradient_is_the_function_s_own():
    inside = (torch.rand(1, 3, 3, 3, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(rgb_to_lab, inside)
    assert torch.autograd.gradcheck(lab_to_rgb, rgb_to_lab(inside).detach().requires_grad_())


def test_recombining_the_true_ab_gives_the_picture_back():
    truth = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    L, ab = rgb_to_lab(truth.float() / 255).split((1, 2), dim=1)
    assert torch.equal(recombine(L, ab), truth)


def test_bf16_autocast_does_not_coarsen_color(rgb):
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rgb_to_lab(rgb), rgb_to_lab(rgb.double()).float(), atol=1e-3, rtol=0)
