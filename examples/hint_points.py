"""Protocols for a curve over the number of color hints on images of 64 px, with points of the authors' share.

A point of R. Zhang et al. 2017 has 6 px to a side at 256 px; 2 px at 64 px is the nearest to that share.

    colorbench evaluate RUN --data DATA --plugin examples/hint_points.py --protocol hint-points-64px \\
        --vary hints=0,1,2,5,10,20,50,100,200,500
"""

from dataclasses import replace

from colorbench_protocols import ZHANG_SWEEP

from colorbench import hookimpl


@hookimpl
def register_protocols(register):
    register(replace(ZHANG_SWEEP, name="hint-points-64px", hint_size=2, source=f"{ZHANG_SWEEP.source}; points of 2 px"))
