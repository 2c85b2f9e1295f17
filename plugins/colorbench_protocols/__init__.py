"""How others in the field score, each as their published code does, mistakes included.

What a source does not compute, MSE apart from PSNR or CIEDE2000 for instance, is computed as everywhere else here.
Which images a source takes is not a matter of the protocol: that is the data.
"""

from __future__ import annotations

from collections.abc import Callable

from colorbench.hooks import hookimpl
from colorbench.protocol import Protocol

ZHANG_SWEEP = Protocol(
    name="zhang-sweep",
    summary="squeezed to a square, truncated to 8 bits, the truth through Lab and truncated, too; PSNR is all it has",
    source="github.com/richzhang/colorization-pytorch: test_sweep.py, util/util.py (tensor2im, calculate_psnr_np)",
    crop="none",
    resize="pillow-bilinear",  # the default of torchvision's Resize, on a Pillow picture
    rounding="truncate",  # tensor2im: astype(uint8)
    truth="through-lab",  # both pictures come out of lab2rgb
)

CT2 = Protocol(
    name="ct2",
    summary="truncated to 8 bits and saved as JPEG, the truth through Lab; SSIM of uniform windows for a range of 225, "
    "absolute colorfulness; PSNR and SSIM are its psnr_convert and ssim_convert",
    source="github.com/shuchenweng/CT2: segm/data/coco.py, segm/engine.py (save_imgs), segm/metrics.py "
    "(avg_ssim_psnr), segm/eval_colorfullness.py",
    crop="center-square-rounded",
    resize="pillow-bilinear",
    rounding="truncate",  # lab_to_rgb: astype(uint8)
    # A prediction is saved under its image's name, ILSVRC2012_val_00000001.JPEG, and read from there to be scored;
    # scikit-image's imsave has the quality 75 unless it is told otherwise.
    saved_as="jpeg-75",
    truth="through-lab",
    ssim_window_shape="uniform",  # this and the next two: the defaults of skimage.measure.compare_ssim
    ssim_window=7,
    ssim_covariance="sample",
    ssim_data_range=225,  # as the code has it; 255 was meant
    colorfulness_opponents="absolute",
)

DDCOLOR = Protocol(
    name="ddcolor",
    summary="squeezed to a square without antialiasing, rounded, against a truth 1.2 times as saturated, absolute "
    "colorfulness; it computes colorfulness, and PSNR without a border of 4 if that is uncommented; it resizes in "
    "floating point, not in 8 bits",
    source="github.com/piddnad/DDColor: basicsr/data/lab_dataset.py, basicsr/models/color_model.py, "
    "basicsr/metrics/colorfulness.py, options/train/train_ddcolor.yml; its calculate_psnr is not in the repository: "
    "github.com/XPixelGroup/BasicSR, basicsr/metrics/psnr_ssim.py",
    crop="none",
    resize="opencv-bilinear",  # cv2.resize as it comes
    truth_saturation=1.2,  # train.color_enhance_factor, which feed_data applies in validation, too
    error_border=4,  # crop_border
    colorfulness_opponents="absolute",
)

OMZ = Protocol(
    name="omz",
    summary="squeezed to a square without antialiasing, truncated, PSNR of luma without a border of 4, red and blue "
    "exchanged, SSIM of one window as large as the picture; it first enlarges each prediction to the size of its "
    "original, which blurs the luminance, too: not done here, where the truth has the size of the prediction",
    source="github.com/openvinotoolkit/open_model_zoo: models/public/colorization-siggraph/accuracy-check.yml, "
    "data/dataset_definitions.yml; in tools/accuracy_checker: metrics/image_quality_assessment.py, "
    "postprocessor/super_resolution_image_recovery.py, preprocessor/resize.py",
    crop="none",
    resize="opencv-bilinear",
    rounding="truncate",  # colorization_recovery: astype(uint8)
    error_channels="luma-bt601-bgr",  # weights for RGB, the default, on pictures that OpenCV reads as BGR
    error_border=4,  # scale_border
    ssim_channels="joined",
    ssim_window_shape="whole",
    # (0.01 * 2**8 - 1)**2 and (0.03 * 2**8 - 1)**2, where 0.01 * (2**8 - 1) was meant
    ssim_k1=1.56 / 255,
    ssim_k2=6.68 / 255,
)


@hookimpl
def register_protocols(register: Callable[[Protocol], None]) -> None:
    for protocol in (ZHANG_SWEEP, CT2, DDCOLOR, OMZ):
        register(protocol)
