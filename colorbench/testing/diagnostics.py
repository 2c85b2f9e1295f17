"""The laws of a diagnostic, checked on toy pictures with two parts and an attention map, as a run computes it.

Its figure is not among them: it is drawn of a whole run, which leaves a figure that fails out and says why.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pandas as pd
import torch

from colorbench.contract import DiagnosticSpec, ratio
from colorbench.errors import reason, whatever_raised
from colorbench.metrics import Pair
from colorbench.metrics.terms import Terms
from colorbench.report.statistics import estimate
from colorbench.testing.pictures import guesses

IMAGES, SIZE = 6, 32


class Diagnostic:
    """A diagnostic under the laws."""

    def __init__(self, spec: DiagnosticSpec) -> None:
        self.spec = spec

    def pair(self, bare: bool = False) -> Pair:
        """Pictures and their truth; `bare` ones have neither parts nor attention."""
        predicted, truth = guesses(IMAGES, SIZE, seed=0)
        if bare:
            return Pair(predicted, truth)
        left = torch.zeros(IMAGES, SIZE, SIZE, dtype=torch.bool)
        left[..., : SIZE // 2] = True
        ramp = torch.linspace(0, 1, 4).repeat(IMAGES, 1, 4, 1)
        return Pair(predicted, truth, {"left": left, "right": ~left}, ramp)

    def terms(self, *pairs: Pair) -> pd.DataFrame:
        terms = Terms([self.spec])
        for pair in pairs:
            terms.add(pair)
        if why := terms.failed.get(self.spec.name):
            raise ValueError(f"terms fails ({why}); let it return a number for each image, floats of shape (B,)")
        return terms.frame()

    @cached_property
    def found(self) -> pd.DataFrame:
        return self.terms(self.pair())


def computes(diagnostic: Diagnostic) -> str | None:
    """`terms` returns numbers by name, one for each image, also of pictures without parts and attention; it writes
    into nothing of the pair, which others share."""
    if diagnostic.spec.terms is None:
        return "no terms: it draws, or counts on those of others"
    bare = diagnostic.terms(diagnostic.pair(bare=True))
    return f"{len(diagnostic.found.columns)} terms, {len(bare.columns)} without parts"


def independent_of_the_batch(diagnostic: Diagnostic) -> str | None:
    """An image has the same terms alone and in a batch."""
    if diagnostic.spec.terms is None:
        return None
    alone = diagnostic.terms(*diagnostic.pair().chunks())
    if not np.allclose(alone, diagnostic.found, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError("other terms for images alone than for all together; compute each image by itself")
    return f"{IMAGES} images"


def statistics(diagnostic: Diagnostic) -> str | None:
    """A number comes out of the means of the terms, and numbers where these are arrays of one shape."""
    spec, found = diagnostic.spec, diagnostic.found if diagnostic.spec.terms else pd.DataFrame()
    columns = list(spec.statistics([*found]) if callable(spec.statistics) else spec.statistics)
    for each in columns:
        if found.empty or (each.formula is None and len(each.terms) == 1) or not {*each.terms} <= {*found}:
            continue  # a mean, or of terms that these pictures lack
        arrays = [found[term].to_numpy()[None] for term in each.terms]
        try:
            value = estimate(arrays, each.formula or ratio).value
            float(value)
        except whatever_raised() as error:
            why = f"{each.name} fails ({reason(error)})"
            raise ValueError(f"{why}; let its formula take arrays of one shape, as NumPy's functions do") from error
    return ", ".join(each.name for each in columns) or None


LAWS = ((computes,), (independent_of_the_batch, statistics))
