"""What a plugin author imports: how a model, a dataset, a metric and a diagnostic present themselves to the harness.

This module imports no torch, so that listing what is installed stays light. `build`, `open` and
`compute` are called only when they are needed: import heavy modules inside them.
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
DIAGNOSTIC_NAME = "[a-z0-9][a-z0-9-]*"


def constant(progress: float) -> float:
    """The learning rate stays what it is."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine from 1 down to 0.01 over the stage."""
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def half_then_linear(progress: float) -> float:
    """Constant for the first half of the stage, then linear to 0, as pix2pix trains."""
    return min(1.0, 2 * (1 - progress))


@dataclass(frozen=True)
class Preset:
    """How large a run is. `epochs` is the budget of a model that trains in one stage.

    `width` multiplies the channel counts of every network; `train`, `val` and `test` cap the images.
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
        """Scale the epochs of a published schedule to this preset: `of` of them are its `epochs`. At least 1."""
        return max(1, round(published * self.epochs / of))

    def images_of(self, published: int, of: int) -> int:
        """Scale a number of images to this preset: `of` of them are its `train`. As published where that is None."""
        return published if self.train is None else max(1, round(published * self.train / of))


@dataclass(frozen=True)
class Stage:
    """One stage of a training schedule. Each stage starts with fresh optimizers, one for each player.

    `optimizer` is a name that torch or timm knows (`timm.optim.list_optimizers()`), such as "adam", "adamw", "lion" or
    "momentum", made by timm with its defaults; or a function, parameter groups and learning rate -> optimizer. Both get
    `optimizer_options`, say `{"betas": (0.5, 0.999)}`, and, if it is not 0, `weight_decay`, which is decoupled from the
    gradient where the optimizer has it so: in "adamw", not in "adam". `clip`, if not 0, is the largest norm that the
    gradient of an update may have. `rates` maps the name of a submodule to a factor on the learning rate of its
    parameters; where two names fit, the longer one counts.

    `decay` maps progress through the stage, 0 to 1, to a factor on the learning rate. Over the first `warm_up` steps,
    or the first share of the stage if it is a float below 1, the rate rises linearly from 0 as well.

    `images` are the training images of an epoch, None for all: the first so many, or those that a function
    `(epoch, count) -> indices` chooses, as many for every epoch. `epoch` counts from 1, `count` is how many images
    there are, any number, and indices are from 0 to `count` - 1. Near-grey images are left out before.

    `frozen` names submodules that do not learn in this stage. `settings` reach the network as `batch.settings`: what it
    is fed, say `{"noise": False}`. `average`, if not 0, is the decay per step of a running mean of the weights, which
    replaces them when the stage ends; early in the stage the mean follows faster.

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

    `step` counts the `steps` of the stage from 0; in validation it is the last one that was taken.
    `inputs` are those arrays of the dataset, (B, ...), that the model takes; when it is timed there are none. Hints are
    not among them: a model that takes hints draws its own from `ab`, as many as it shall learn from, and
    `colorbench.hints.reveal` makes the tensor.
    """

    L: Tensor
    ab: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: int = 0
    steps: int = 1
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def progress(self) -> float:
        """The share of the stage that lies before this step, from 0 to below 1."""
        return self.step / self.steps


@dataclass(frozen=True)
class Update:
    """One optimizer step: the sum of `losses` is minimised over the parameters of the submodule `player`.

    The player "" is the whole network. Each loss is a scalar, already weighted, and is logged by its name.
    """

    losses: Mapping[str, Tensor]
    player: str = ""


@runtime_checkable
class Network(Protocol):
    """What `ModelSpec.build` returns: a `torch.nn.Module` with these two methods. `OPTIONAL` lists what it may have.

    Randomness comes from torch's global generator, which the harness seeds anew for every step: a
    resumed training draws the same numbers. In eval mode `forward` draws none.
    """

    def forward(self, L: Tensor) -> Tensor:
        """L float32 (B, 1, H, W) in 0..100 -> ab float32 (B, 2, H, W), Lab units.

        What `ModelSpec.takes` names comes as keywords, where there is any: give each a default, such as None.
        """

    def updates(self, batch: Batch) -> Iterator[Update]:
        """Yield the updates of one training step; the harness steps after each before asking for the next.

        In eval mode the same updates are asked for, without gradient, to log validation losses: nothing
        may be learnt or counted then.
        """


@runtime_checkable
class Measures(Protocol):
    """A network that takes statistics of the training images, in a stage with `measures=True`."""

    measured: Sequence[str]  # the buffers that `measure` sets: saved with the weights, but not due in a published file

    def measure(self, batches: Iterator[Batch]) -> None:
        """See the images of the stage once, as they are, in their order, and set the buffers `measured`.

        Called in eval mode, without gradient, in float32; each of several processes sees all the images. The buffers
        keep their shapes.
        """


@runtime_checkable
class ShowsAttention(Protocol):
    """A network whose attention is drawn beside the pictures and compared with the true chroma."""

    def with_attention(self, L: Tensor, **inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """From what `forward` gets to what it gives, and a map, float32 (B, 1, h, w) in 0..1 and no larger than L, or
        None."""


@runtime_checkable
class Annotated(Protocol):
    """A network with something to say to the reader of the numbers, such as that a weight file was absent."""

    notes: Sequence[str]  # sentences for the run record and the foot of the table


# What a network may have beside the methods of Network, by the name of the attribute.
OPTIONAL: Mapping[str, type] = {
    "measure": Measures,
    "measured": Measures,
    "with_attention": ShowsAttention,
    "notes": Annotated,
}


@dataclass(frozen=True)
class Published:
    """What a paper prints for a model. Shown in a block of its own, never as a row to compare with."""

    source: str
    mse: float | None = None
    psnr: float | None = None
    ssim: float | None = None
    note: str = ""


def made_elsewhere(**_: Any) -> nn.Module:
    """The `build` of a row that has pictures."""
    raise ValueError("it was made elsewhere: it has pictures, no network")


def untrained(preset: Preset) -> Sequence[Stage]:
    """The schedule of what learns nothing."""
    return ()


@dataclass(frozen=True)
class ModelSpec:
    """A model as the harness sees it.

    `build(width=..., size=..., base=..., **options)` returns the network; `size` is the side of the images it
    trains on, `base` the trained, frozen network of the model named by `refines`, or None. The network keeps
    the base as a submodule; it is neither trained nor saved again. `schedule(preset)` returns the stages, none
    for a model that learns nothing. `trained_as` names a model from which this one differs at test alone: it is not
    trained, but takes that model's trained weights.
    `options` is an instance of a frozen dataclass, or a mapping, of defaults; `build` gets each as a keyword, and
    `--option NAME.KEY=VALUE` replaces one. A file among them counts by its content. To load a trained network `build`
    gets None for a file that is no longer there, or is another now: what the network needs of it to color belongs into
    its state, a parameter or buffer.
    `reference` marks the model over which the table gives the other models' gain. `anchor` marks the ends of the scale
    on which the table puts all models: "floor", what knows nothing of an image, has the skill 0; "bound" is what no
    model of its kind can beat. `sees_truth` is for such bounds: their `forward` gets the true ab, too, (L, ab) -> ab.
    `takes` names what `forward` can take beside L, each by its keyword: "hints", and arrays of a dataset. "hints" is
    float32 (B, 3, H, W): ab in Lab units, and a mask that is 1 where they count; elsewhere all three are 0. It comes
    under a protocol with hints, an array with a dataset that has it; without, the model colors by L alone.
    `pictures` stands in place of `build` and `schedule`: a folder or zip of colored test images, made elsewhere. They
    are matched with the test images by name, and their ab is scored with the true L; the pictures themselves are if
    `options` has `as_is=True`.
    Of published weights, `published_width` is the width and `published_size` the side in pixels that they were made
    for; `convert` maps their state, by name, to that of the network if the names are others.
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
    convert: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] | None = None
    published_size: int = 256
    published_width: float = 1.0

    def __post_init__(self) -> None:
        if not re.fullmatch(MODEL_NAME, self.name) or re.search(r"/seed-\d", self.name):
            raise ValueError(f"model name {self.name!r}: say it in lower-case letters, digits, dashes and dots")
        if self.build is made_elsewhere and self.pictures is None:
            raise ValueError(f"model {self.name!r} has neither build nor pictures; give one of them")
        if isinstance(self.takes, str) or not all(name.isidentifier() for name in self.takes):
            raise ValueError(f"model {self.name!r}: takes is {self.takes!r}; give names, such as ('hints',)")
        parameters = getattr(type(self.options), "__dataclass_params__", None)
        if not isinstance(self.options, Mapping) and not (parameters and parameters.frozen):
            raise TypeError(f"model {self.name!r}: options is no instance of a frozen dataclass, and no mapping")

    @property
    def option_values(self) -> dict[str, Any]:
        """The options by name: keywords of `build`."""
        if isinstance(self.options, Mapping):
            return dict(self.options)
        return {option.name: getattr(self.options, option.name) for option in fields(self.options)}

    def with_options(self, **options: Any) -> ModelSpec:
        """The same model with other options. Raises UserError for a name that its dataclass has not."""
        if isinstance(self.options, Mapping):
            return replace(self, options={**self.options, **options})
        refuse_unknown(f"option of {self.name}:", options, self.option_values)
        return replace(self, options=replace(self.options, **options))

    def variant(self, change: str, **options: Any) -> ModelSpec:
        """The same model with other options: an ablation, named `parent/change`.

        Without options it is to be changed otherwise: `replace(spec.variant("slower"), schedule=slower)`.
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
    """One image of a dataset. `digest` depends on the content alone; `name` is unique in its split.

    A dataset that knows more of its pictures adds `arrays(size)`: arrays by name, bool, uint8, int64 or float32, of one
    shape and type in every picture; `digest` covers them. They reach the models and metrics that take them. One whose
    last sides are (size, size) belongs to the picture as the protocol crops and resizes it, and is flipped with it in
    training. A bool array (size, size) is the mask of a part, and the error is also told by part.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def load(self, size: int) -> np.ndarray:
        """uint8 RGB (h, w, 3). `size` is what the run will resize to: a drawn image may render at it.

        Raises OSError or ValueError with the reason when the image cannot be read.
        """


@dataclass(frozen=True)
class DatasetSpec:
    """A dataset as `--data NAME` or `--data NAME:ARGUMENT` opens it.

    `open(argument)` returns the pictures of each split, "train", "val" and "test", or of those that exist. A split may
    be any sequence, say one of millions that makes a picture when it is asked for: where a run takes fewer than all of
    more than 20,000, no others are made. A picture's `digest` may come from a list: nothing is read to check it.
    It raises ValueError with one line that says what is wrong with the argument.
    """

    name: str
    summary: str
    open: Callable[[str], Mapping[str, Sequence[Picture]]]


@dataclass(frozen=True)
class MetricSpec:
    """A further score in a column of its own: one per image, or, with `reduce`, one over the whole test set.

    `compute(predicted, truth)` gets a batch, uint8 RGB (B, 3, H, W), or, if `space` is "lab", what the protocol makes
    of it: float32 Lab (B, 3, H, W), L in 0..100, a and b in Lab units. It returns the scores, floats (B,).

    Over the set it returns features of each image, floats (B, k), and `reduce` joins those of all, float64 (N, k), to a
    number, NaN if they are too few. Metrics with one `compute` share its features; the names of scores of the protocol
    in its place are features, too. With `resample` an interval is computed by resampling the images: for a cheap
    `reduce`. Without, there is none.

    `prepare(batches)` sees up to 2,000 pictures of the training split, evenly spread over it, in batches as `compute`
    gets them, and returns an array, which `compute` gets as a third argument. Where there is no training split the
    metric is left out.

    `name` is that of a column: lower-case letters, digits and _, and none that the tables have already.
    `better` says which scores are: "lower", "higher", "zero" (nearest to 0), or "" for neither. `settings`, plain
    values and paths, are recorded and bind the scores; a file counts by its content. `notes` are sentences for the foot
    of the table. `missing`, if not "", is why the metric cannot be computed here, with the remedy: it is listed, and
    left out. `takes_weights` lets `--weights NAME=FILE` reach `register_metrics` under this name.

    `takes` names arrays of the dataset that `compute` gets as keywords, (B, ...) each; with data that lack one the
    metric is left out.
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
    takes: Sequence[str] = ()


def ratio(above: Any, below: Any) -> Any:
    """above / below, NaN where `below` is not above 0: numbers, or arrays of one shape."""
    import numpy as np

    return np.where(below > 0, above / below, np.nan)


@dataclass(frozen=True)
class Statistic:
    """A number about a model, with its 95 % interval: the column `title` of a table, and `name` of details.csv.

    `formula` gets the mean of each of `terms` over all images and seeds, and returns the number, NaN where there is
    none; it has to take arrays of one shape, too. Without a formula one term is averaged over the images that have it,
    in which it is not NaN, and of two the first is divided by the second (`ratio`). `form` is the number's format
    specification.

    `gain`, if not "", is a short title: how many percent the number is below that of the model's base, and below that
    of an ablation's parent, is then told in tables of their own.
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
    """What lies behind the scores: a table in details.md, a figure, or both.

    `terms(pair)` is computed beside the scores: of pictures and their truth, a `colorbench.metrics.Pair`, it returns
    numbers by name, floats (B,). It reads what the pair has computed already, which others share: nothing may be
    written into that. A term that only some images have is NaN, or 0 where it is summed.

    `statistics` are made of the terms, pooled over images and seeds, or a function that gives them for the names of all
    terms that a run has. They are the columns of the table headed `table`, which diagnostics may share; `gains` heads
    the tables of gains, with {} for "base" or "parent". `summed` says in a few words how the numbers come about where
    that is not pixel by pixel.

    `draw(view)` returns a Matplotlib figure, the bytes of a PNG, or None if there is nothing to show, for a file with
    the name of the diagnostic; `view` is a `colorbench.report.diagnostics.View`. It stands under `caption` at the foot
    of a page: details.md, comparison.md or ablations.md. `notes`, or a function of the view that gives them, are
    sentences for that page, if there is anything to show. What makes tables and figures imports no torch.

    A diagnostic that fails is left out with its reason; the scores and all else stay.
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
