"""What a plugin author imports: the types that describe models, datasets, metrics and diagnostics to the harness.

This module does not import torch, so listing what is installed stays fast. `build`, `open` and `compute` are called
only when they are needed: import heavy modules inside them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from colorbench.errors import refuse_unknown

if TYPE_CHECKING:
    import numpy as np
    from _typeshed import DataclassInstance
    from matplotlib.figure import Figure
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from colorbench.metrics import Pair
    from colorbench.report.diagnostics import View

MODEL_NAME = r"[a-z0-9][a-z0-9.-]*(/[a-z0-9][a-z0-9.-]*)?"
PUBLISHED = "published"  # said in place of a weight file: the published one that is kept
DIAGNOSTIC_NAME = "[a-z0-9][a-z0-9-]*"


def constant(progress: float) -> float:
    """The learning rate stays constant."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 down to 0.01 over the stage."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def half_then_linear(progress: float) -> float:
    """Constant for the first half of the stage, then linear to 0, as in pix2pix."""
    return min(1.0, 2 * (1 - progress))


@dataclass(frozen=True)
class Preset:
    """The scale of a run. `epochs` is the number of epochs of a model that trains in one stage.

    `width` multiplies the channel counts of every network; `train`, `val` and `test` limit the numbers of images.
    """

    name: str
    summary: str
    size: int
    width: float
    batch_size: int
    epochs: int
    train: int | None = None
    val: int | None = None
    test: int | None = None

    def epochs_of(self, published: int, of: int) -> int:
        """Scale published epochs to this preset, where `of` published epochs are its `epochs`. At least 1."""
        return max(1, round(published * self.epochs / of))

    def images_of(self, published: int, of: int) -> int:
        """Scale a number of images to this preset, where `of` images are its `train`. Unchanged if `train` is None."""
        return published if self.train is None else max(1, round(published * self.train / of))


@dataclass(frozen=True)
class Stage:
    """One stage of a training schedule. Each stage starts with new optimizers, one per player.

    `optimizer` is a name in `timm.optim.list_optimizers()`, such as "adam", "adamw", "lion" or "momentum", made with
    timm's defaults; or a function (parameter groups, learning rate) -> optimizer. Both get `optimizer_options`, such as
    `{"betas": (0.5, 0.999)}`, and `weight_decay` if it is not 0. Weight decay is decoupled from the gradient if the
    optimizer does so: in "adamw", not in "adam". `clip`, if not 0, is the largest allowed gradient norm of an update.
    `rates` maps the name of a submodule to a factor on the learning rate of its parameters; if two names match, the
    longer one is used.

    `decay` maps progress through the stage, 0 to 1, to a factor on the learning rate. In addition, the rate rises
    linearly from 0 over the first `warm_up` steps, or over that share of the stage if it is a float below 1.

    `images` selects the training images of an epoch: None for all, a number for the first ones, or a function
    `(epoch, count) -> indices` that returns the same number for every epoch. `epoch` counts from 1, `count` is the
    number of available images, and indices are from 0 to `count` - 1. Near-grey images are already left out.

    `frozen` names submodules that do not learn in this stage. `settings` reach the network as `batch.settings`, for
    example `{"noise": False}`. `average`, if not 0, is the decay per step of a running mean of the weights. The mean
    replaces the weights at the end of the stage; early in the stage it follows the weights faster.

    With `measures` the stage has no updates: the network's method `measure` sees the images once; see `Measures`.
    """

    name: str
    epochs: int = 1
    learning_rate: float = 1e-4
    decay: Callable[[float], float] = cosine
    warm_up: int | float = 0
    optimizer: str | Callable[..., Optimizer] = "adam"
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    weight_decay: float = 0.0
    clip: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)
    images: int | Callable[[int, int], Sequence[int]] | None = None
    frozen: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    average: float = 0.0
    measures: bool = False


@dataclass(frozen=True)
class Batch:
    """A batch on the device. `L` (B, 1, H, W) in 0..100 and `ab` (B, 2, H, W) in Lab units, both float32.

    `step` counts the `steps` of the stage from 0; in validation it is the last training step.
    `inputs` are the dataset arrays, (B, ...), that the model takes. Hints are not in it: a model that takes hints draws
    its own from `ab`, as many as it should learn from, and makes the tensor with `colorbench.hints.reveal`.
    """

    L: Tensor
    ab: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 1
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """The share of the stage before this step, from 0 to below 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class Update:
    """One optimizer step: the sum of `losses` is minimized over the parameters of the submodule `player`.

    The player "" is the whole network. Each loss is a scalar, already weighted, and is logged by its name.
    """

    losses: Mapping[str, Tensor]
    player: str = ""


@runtime_checkable
class Network(Protocol):
    """What `ModelSpec.build` returns: a `torch.nn.Module` with these two methods. `OPTIONAL` lists further attributes.

    Use torch's global generator for random numbers. The harness seeds it again for every step, so a resumed training
    draws the same numbers. In eval mode `forward` must not draw any.
    """

    def forward(self, L: Tensor) -> Tensor:
        """L float32 (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W), Lab units.

        Inputs named in `ModelSpec.takes` are passed as keywords if available: give each a default, such as None.
        """

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Yield the updates of one training step; the harness runs the optimizer after each, then asks for the next.

        In eval mode, the same updates are requested without gradient, to log validation losses: nothing
        may be learned or counted then.
        """


@runtime_checkable
class Measures(Protocol):
    """A network that computes statistics of the training images, in a stage with `measures=True`."""

    measured: Sequence[str]  # the buffers that `measure` sets: saved with the weights, but not due in a published file

    def measure(self, batches: Iterator[Batch]) -> None:
        """See the images of the stage once, unchanged and in order, and set the buffers in `measured`.

        Called in eval mode, without gradient, in float32. With several processes, each sees all images. Buffers keep
        their shapes.
        """


@runtime_checkable
class ShowsAttention(Protocol):
    """A network whose attention map is drawn beside the pictures and compared with the true chroma."""

    def with_attention(self, L: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Same input as `forward`. Returns its output and a map, float32 (B, 1, h, w) in 0..1 and not larger than L,
        or None."""


@runtime_checkable
class Annotated(Protocol):
    """A network with notes for the reader, for example that a weight file was missing."""

    notes: Sequence[str]  # sentences for the run record and the foot of the table


@runtime_checkable
class PublishedInPart(Protocol):
    """A network with submodules that only train it, such as a discriminator."""

    unpublished: Sequence[str]  # the names of those submodules: they are not due in a published file


# What a network may have beside the methods of Network, by the name of the attribute.
OPTIONAL: Mapping[str, type] = {
    "measure": Measures,
    "measured": Measures,
    "with_attention": ShowsAttention,
    "notes": Annotated,
    "unpublished": PublishedInPart,
}


@dataclass(frozen=True)
class Published:
    """What a paper reports for a model. Shown in a separate block, never as a row to compare with."""

    source: str
    mse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PublishedWeights:
    """A file of weights that others published: `colorbench weights` lists, fetches, checks and keeps it.

    `file` is the name under which it is kept. `url` downloads it without signing in; "" if nothing does. `page`
    tells about it. `sha256` is its hash in hexadecimal, or the first 8 or more digits if no more are known. `size`
    is in bytes, 0 if unknown; a download needs it, to know where to stop. `licence` and `trained_on` are a few
    words, such as "BSD-2-Clause" and "ImageNet".
    """

    file: str
    url: str
    page: str
    sha256: str
    licence: str
    trained_on: str
    size: int = 0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.file):
            raise ValueError(f"published weights {self.file!r}: name the file in letters, digits, dashes and dots")
        if not re.fullmatch("[0-9a-f]{8,64}", self.sha256):
            raise ValueError(f"published weights {self.file}: sha256 is {self.sha256!r}; give 8 to 64 digits, 0-9 a-f")
        if not all(re.match("https?://", address) for address in (self.page, self.url or self.page)):
            raise ValueError(f"published weights {self.file}: url and page have to begin with https:// or http://")
        if self.url and self.size <= 0:
            raise ValueError(f"published weights {self.file}: size is {self.size}; give the bytes that url downloads")


def made_elsewhere(**_: Any) -> nn.Module:
    """The default `build`: only a row with pictures has it."""
    raise ValueError("it was made elsewhere: it has pictures, no network")


def untrained(preset: Preset) -> Sequence[Stage]:
    """The default schedule of a model that does not learn."""
    return ()


@dataclass(frozen=True)
class ModelSpec:
    """A model as the harness uses it.

    `build(width=..., size=..., base=..., **options)` returns the network. `size` is the side of the training images.
    `base` is the trained, frozen network of the model named by `refines`, or None. The network keeps the base as a
    submodule; it is neither trained nor saved again. `schedule(preset)` returns the stages, none for a model that does
    not learn. `trained_as` names a model from which this one differs only at test time: this one is not trained, and
    uses the trained weights of that model.
    `options` has the default values, as an instance of a frozen dataclass or a mapping; `build` gets each as a keyword,
    and `--option NAME.KEY=VALUE` replaces one. A model that trains also has the option `rate_factor`, on the learning
    rate of every stage, which `build` does not get. A file option is identified by its content. When a trained network
    is loaded, `build` gets None for a file that is missing or has changed: what coloring needs from the file must be in
    a parameter or buffer.
    `reference` marks the model over which the table reports gains. `anchor` marks the ends of the table's scale:
    "floor" has skill 0 and does not use the image; "bound" cannot be beaten by any model of its kind. `sees_truth` is
    for such bounds, and for choices that only a test can make: their `forward` also gets the true ab, (L, ab) -> ab.
    `takes` names keyword inputs of `forward` besides L: "hints", and arrays of a dataset. "hints" is float32 (B, 3, H,
    W): ab in Lab units, and a mask that is 1 where they are valid; elsewhere all three are 0. Hints come only with a
    protocol that has them, arrays only with a dataset that has them; otherwise the model colors from L alone.
    `pictures` replaces `build` and `schedule`: a folder or zip of colored test images made elsewhere. They are matched
    with the test images by name, and their ab is scored with the true L; with `as_is=True` in `options` they are scored
    unchanged.
    `weights` are the published weights that the model takes, the usual ones first: `--weights NAME` uses these once
    they are kept. `published_width` is their width and `published_size` the side in pixels they were made for;
    `convert` maps their state dict to the names of the network if these differ.
    With `in_all=False`, "all" does not stand for the model; its name and "everything" do.
    """

    name: str
    summary: str
    build: Callable[..., nn.Module] = made_elsewhere
    schedule: Callable[[Preset], Sequence[Stage]] = untrained
    options: DataclassInstance | Mapping[str, Any] = field(default_factory=dict)
    refines: str | None = None
    trained_as: str | None = None
    parent: str | None = None
    reference: bool = False
    anchor: Literal["", "floor", "bound"] = ""
    sees_truth: bool = False
    published: Published | None = None
    pictures: Path | None = None
    takes: Sequence[str] = ()
    weights: Sequence[PublishedWeights] = ()
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    published_size: int = 256
    published_width: float = 1.0
    in_all: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(MODEL_NAME, self.name) or re.search(r"/seed-\d", self.name):
            raise ValueError(f"model name {self.name!r}: say it in lower-case letters, digits, dashes and dots")
        if self.build is made_elsewhere and self.pictures is None:
            raise ValueError(f"model {self.name!r} has neither build nor pictures; give one of them")
        if not all(map(callable, (self.build, self.schedule, callable if self.convert is None else self.convert))):
            raise ValueError(f"model {self.name!r}: build, schedule or convert is not a function")
        width, size = self.published_width, self.published_size
        if not isinstance(width, int | float) or not 0 < width < math.inf:
            raise ValueError(f"model {self.name!r}: published_width is {width!r}; give a factor above 0")
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"model {self.name!r}: published_size is {size!r}; give a side in pixels")
        if isinstance(self.takes, str) or not all(name.isidentifier() for name in self.takes):
            raise ValueError(f"model {self.name!r}: takes is {self.takes!r}; give names, such as ('hints',)")
        if not all(isinstance(weights, PublishedWeights) for weights in self.weights):
            raise TypeError(f"model {self.name!r}: weights is not a sequence of colorbench.PublishedWeights")
        parameters = getattr(type(self.options), "__dataclass_params__", None)
        if not isinstance(self.options, Mapping) and not (parameters and parameters.frozen):
            raise TypeError(f"model {self.name!r}: options is neither an instance of a frozen dataclass nor a mapping")

    @property
    def option_values(self) -> dict[str, Any]:
        """The options by name: keywords of `build`."""
        if isinstance(self.options, Mapping):
            return dict(self.options)
        return {option.name: getattr(self.options, option.name) for option in fields(self.options)}

    def with_options(self, **options: Any) -> ModelSpec:
        """The same model with other options. Raises UserError for a name that is not in its dataclass."""
        if isinstance(self.options, Mapping):
            return replace(self, options={**self.options, **options})
        refuse_unknown(f"option of {self.name}:", options, self.option_values)
        return replace(self, options=replace(self.options, **options))

    def variant(self, change: str, **options: Any) -> ModelSpec:
        """The same model with other options, as an ablation named `parent/change`.

        Without options, change it in another way: `replace(spec.variant("slower"), schedule=slower)`.
        """
        what = ", ".join(f"{key}={value}" for key, value in options.items())
        return replace(
            self.with_options(**options),
            name=f"{self.name}/{change}",
            summary=f"{self.name} with {what}" if what else f"{self.name}, {change}",
            parent=self.name,
            reference=False,
            anchor="",
            published=None,
        )


class Picture(Protocol):
    """One image of a dataset. `digest` depends only on the content; `name` is unique within its split.

    A dataset can add `arrays(size)`: arrays by name, of bool, uint8, int64 or float32, with the same shape and type in
    every picture; `digest` covers them. They reach the models and metrics that take them. If the last sides are (size,
    size), the array belongs to the picture as the protocol crops and resizes it, and is flipped with it in training. A
    bool array (size, size) is a mask of a part: the error is also reported for that part.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def load(self, size: int) -> np.ndarray:
        """uint8 RGB (h, w, 3). `size` is the size to which the run resizes: a drawn image may render at this size.

        Raises OSError or ValueError with the reason if the image cannot be read.
        """


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset that `--data NAME` or `--data NAME:ARGUMENT` opens.

    `open(argument)` returns the pictures of the splits that exist, among "train", "val" and "test". A split may be any
    sequence, even one with millions of pictures made on demand: if a split has more than 20,000 pictures and a run uses
    fewer, only those are made. The `digest` of a picture may come from a list: nothing is read to check it.
    Raises ValueError with one line that says what is wrong with the argument.

    With `complete`, a picture that cannot be read is an error; otherwise up to 5 % of a split are named and left out.
    """

    name: str
    summary: str
    open: Callable[[str], Mapping[str, Sequence[Picture]]]
    complete: bool = False


@dataclass(frozen=True)
class DegradationSpec:
    """Damage to the input of models, such as noise. Training images and the truth that scores compare with stay clean.

    A protocol applies it in its field `degradation`, "NAME:STRENGTH". `apply(rgb, strength, seeds)` gets cropped and
    resized pictures, uint8 RGB (B, 3, H, W), and returns the L that models see: float32 (B, 1, H, W) in 0..100. What is
    random must follow `seeds`, a whole number per image, the same for every strength and model.

    `strengths`, numbers above 0, the least damage first, are those of a series. `summary` says what a strength counts.
    """

    name: str
    summary: str
    apply: Callable[[Tensor, float, Sequence[int]], Tensor]
    strengths: Sequence[float]


@dataclass(frozen=True)
class MetricSpec:
    """A further score in its own column: one per image, or, with `reduce`, one over the whole test set.

    `compute(predicted, truth)` gets a batch, uint8 RGB (B, 3, H, W), or, if `space` is "lab", the Lab values of the
    protocol: float32 (B, 3, H, W), L in 0..100, a and b in Lab units. It returns the scores, floats (B,).

    For a score over the set, `compute` returns features per image, floats (B, k), and `reduce` maps the features of all
    images, float64 (N, k), to a number, or NaN if there are too few images. Metrics with the same `compute` share its
    features. Names of protocol scores in place of `compute` are features, too. With `resample` the interval comes from
    resampling the images: use it for a fast `reduce`. Without it there is no interval.

    `prepare(batches)` sees up to 2,000 pictures spread evenly over the training split, in batches as `compute` gets
    them. It returns an array that `compute` gets as a third argument. Without a training split, the metric is left out.

    `name` is a column name: lower-case letters, digits and _, starting with a letter, and not yet used in the tables.
    `better` says which scores are better: "lower", "higher", "zero" (nearest to 0), or "" for none. `settings`, plain
    values and paths, are recorded, and the scores depend on them; a file is identified by its content. `notes` are
    sentences below the table. `missing`, if not "", says why the metric cannot be computed here and how to fix it: it
    is listed but left out. With `takes_weights`, `--weights NAME=FILE` reaches `register_metrics` under this name; if
    it is missing even so, the command is refused, unless `settings` say that the file is used by another metric.

    `weights` are the published weights that it finds with `colorbench.find_weights`.

    `takes` names dataset arrays that `compute` gets as keywords, (B, ...) each; if the data lack one, the metric is
    left out.
    """

    name: str
    summary: str
    compute: Callable[..., Tensor] | Sequence[str]
    reduce: Callable[[np.ndarray], float] | None = None
    resample: bool = False
    prepare: Callable[[Iterator[Tensor]], np.ndarray] | None = None
    space: Literal["rgb", "lab"] = "rgb"
    better: Literal["lower", "higher", "zero", ""] = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    missing: str = ""
    takes_weights: bool = False
    weights: Sequence[PublishedWeights] = ()
    takes: Sequence[str] = ()


def ratio(above: Any, below: Any) -> Any:
    """above / below, NaN where `below` is not above 0; numbers or arrays of the same shape."""
    import numpy as np

    return np.where(below > 0, above / below, np.nan)


@dataclass(frozen=True)
class Statistic:
    """A number about a model with a 95 % interval: the column `title` of a table, and `name` in details.csv.

    `formula` gets the mean of each of `terms` over all images and seeds. It returns the number, or NaN if there is
    none, and must also accept arrays of one shape. Without a formula, one term is averaged over the images where it is
    not NaN; of two terms, the first is divided by the second (`ratio`). `form` is the format specification of the
    number.

    `gain`, if not "", is a short title: further tables then show by how many percent the number is below that of the
    model's base, and of an ablation's parent.
    """

    name: str
    title: str
    terms: Sequence[str]
    formula: Callable[..., Any] | None = None
    form: str = ",.2f"
    gain: str = ""

    def __post_init__(self) -> None:
        texts = (self.name, self.title, self.form, self.gain, *self.terms)
        if isinstance(self.terms, str) or not self.terms or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"statistic {self.name!r}: give names of terms, and everything but `formula` as text")
        format(0.5, self.form)  # raises ValueError


@dataclass(frozen=True)
class DiagnosticSpec:
    """An analysis behind the scores: a table in details.md, a figure, or both.

    `terms(pair)` is computed with the scores. From pictures and their truth, a `colorbench.metrics.Pair`, it returns
    numbers by name, floats (B,). It reads values that the pair has already computed and that others share: do not write
    into them. A term that only some images have is NaN elsewhere, or 0 if it is summed.

    `statistics` are computed from the terms, pooled over images and seeds; or a function that returns them, given the
    names of all terms of a run. They are columns of the table with heading `table`, which diagnostics can share.
    `gains` is the heading of the tables of gains, with {} for "base" or "parent". `summed` says in a few words how the
    numbers are computed if not pixel by pixel.

    `draw(view)` returns a Matplotlib figure, the bytes of a PNG, or None if there is nothing to show; `view` is a
    `colorbench.report.diagnostics.View`. The file has the name of the diagnostic. The figure is shown with `caption` at
    the end of a page: details.md, comparison.md or ablations.md. `notes`, or a function of the view that returns them,
    are sentences for that page if there is anything to show. Code for tables and figures must not import torch.

    A diagnostic that fails is left out, with the reason; scores and all other output remain.
    """

    name: str
    summary: str
    terms: Callable[[Pair], Mapping[str, Tensor]] | None = None
    statistics: Sequence[Statistic] | Callable[[Sequence[str]], Sequence[Statistic]] = ()
    table: str = ""
    gains: str = ""
    summed: str = ""
    draw: Callable[[View], Figure | bytes | None] | None = None
    caption: str = ""
    page: Literal["details", "comparison", "ablations"] = "details"
    notes: Sequence[str] | Callable[[View], Sequence[str]] = ()
