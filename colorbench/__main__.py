"""`python -m colorbench`, and `accelerate launch -m colorbench` for several GPUs."""

from colorbench.cli import main

main(prog_name="colorbench")
