"""The terms of diagnostics: numbers per image beside its scores, of which the report makes tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor

from colorbench.contract import DiagnosticSpec
from colorbench.errors import one_line, reason, whatever_raised
from colorbench.metrics.pair import SHARED, Pair
from colorbench.protocol import KEYS

STEP = 16  # of the rows that are compared, other ones in each image: all of them would cost a tenth of the scoring


class Terms:
    """The terms of images that pass by in batches. What fails is left out of all: `failed` has the reason by name."""

    def __init__(self, specs: Iterable[DiagnosticSpec]) -> None:
        self.failed: dict[str, str] = {}
        self._compute = {spec.name: spec.terms for spec in specs if spec.terms is not None}
        self._columns: dict[str, dict[str, list[Tensor]]] = {}  # by diagnostic and term
        self._images = 0

    def add(self, pair: Pair) -> None:
        """Compute those of the next images. What writes into the pair fails; the others see it as it was."""
        if not self._compute:
            return
        own = pair.copy()
        vars(own).update({name: getattr(pair, name) for name in SHARED})  # which the scores have computed
        kept = _rows(own, self._images, STEP)
        found = self._found(pair, own, closely=not self._images)
        if _rows(own, self._images, STEP) != kept:
            found = self._found(pair, _computed(pair.copy()), closely=True)
        self._images += len(pair.truth)
        for name, terms in found.items():
            columns = self._columns.setdefault(name, {term: [] for term in terms})
            if columns.keys() != terms.keys():
                self.failed[name] = f"its terms are {', '.join(terms)}, and were {', '.join(columns)}"
                continue
            for term, values in terms.items():
                columns[term].append(values)

    def _found(self, pair: Pair, own: Pair, closely: bool) -> dict[str, dict[str, Tensor]]:
        """The terms of `own`, a copy of the pair, by diagnostic, without those that fail.

        What writes through NumPy, which torch does not count, is found only if one looks `closely`.
        """
        found = dict[str, dict[str, Tensor]]()
        for name in [name for name in self._compute if name not in self.failed]:
            before, kept = _tensors_of(own), _rows(own) if closely else {}
            try:
                found[name] = _checked(self._compute[name](own), len(pair.truth))
                now = _rows(own) if closely else {}
                written = _difference(before, _tensors_of(own))
                if written := written or next((field for field in kept if kept[field] != now[field]), ""):
                    raise ValueError(f"it writes into pair.{written}, which others read; use what returns a new tensor")
            except whatever_raised() as error:  # the scores do not depend on it
                self.failed[name] = reason(error)
                found.pop(name, None)
                own = _computed(pair.copy())  # it may have written into that before
        return found

    def frame(self) -> pd.DataFrame:
        """A row per image, a float64 column per term; empty if there is none. Of two of one name the second fails."""
        frame = dict[str, Tensor]()
        for name in [name for name in self._columns if name not in self.failed]:
            columns = {term: torch.cat(values) for term, values in self._columns[name].items()}
            if taken := sorted(columns.keys() & frame.keys()):
                self.failed[name] = f"another diagnostic has terms of these names: {', '.join(taken)}"
            elif infinite := [term for term, values in columns.items() if values.isinf().any()]:
                self.failed[name] = f"infinite for some image: {', '.join(infinite)}"
            else:
                frame |= columns
        return pd.DataFrame({term: values.numpy() for term, values in frame.items()})


def _computed(pair: Pair) -> Pair:
    """The pair, once all is computed that diagnostics share."""
    for name in SHARED:
        getattr(pair, name)
    return pair


def _rows(pair: Pair, start: int = 0, step: int = 1) -> dict[str, list[bytes]]:
    """The bytes of every `step`-th row of all tensors by field; none on a GPU, where NumPy cannot write."""
    rows: dict[str, list[bytes]] = {}
    for name, tensor, _ in _tensors_of(pair) if pair.truth.device.type == "cpu" else ():
        values = tensor.numpy()
        of_images = values[..., start % min(step, values.shape[-2] or 1) :: step, :] if values.ndim > 2 else values
        rows.setdefault(name, []).append(of_images.tobytes())
    return rows


def _tensors_of(pair: Pair) -> list[tuple[str, Tensor, int]]:
    """Every tensor of a pair with the field that it lies in, and how often it was written into."""
    return [(name, tensor, tensor._version) for name, value in vars(pair).items() for tensor in _within(value)]


def _within(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    for part in value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ():
        yield from _within(part)


def _difference(before: Sequence[tuple[str, Tensor, int]], after: Sequence[tuple[str, Tensor, int]]) -> str:
    """The first field of which a tensor is another or was written into; "" if there is none."""
    same = {(name, id(tensor), version) for name, tensor, version in after}
    return next((name for name, tensor, version in before if (name, id(tensor), version) not in same), "")


def _checked(terms: Mapping[str, Tensor], images: int) -> dict[str, Tensor]:
    """The terms as float64 on the CPU. Raises ValueError for what a table cannot hold."""
    found = {}
    for term, values in terms.items():
        if not isinstance(term, str) or term != one_line(term) or term in ("", *KEYS):
            raise ValueError(f"no term can be called {term!r}")
        if tuple(values.shape) != (images,) or values.is_complex():
            raise ValueError(f"{term} is {values.dtype} {tuple(values.shape)}; a number per image is due, ({images},)")
        found[term] = values.detach().cpu().double()
    return found
