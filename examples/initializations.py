"""Ablations of every installed model: other first weights. With `--select val`, a table of rates has them, too:

    colorbench run --plugin examples/initializations.py --models cnn --option cnn.rate_factor=0.5,1,2,4 --select val \\
        --ablations init-torch,init-kaiming,init-xavier,init-normal

Layers whose weights begin at zero keep them, as in a residual that begins with nothing; so do submodules that no stage
trains, such as a table of colors. A refiner's base is left alone.
Weights that an option took from a file are replaced: such a model does not begin anew.
"""

from dataclasses import replace
from functools import wraps

from colorbench import hookimpl, plugins
from colorbench.contract import untrained
from colorbench.presets import PRESETS

WEIGHTS = {  # what draws the weights; biases are 0, except for torch's own
    "torch": "torch's own: uniform, of the variance 1 / (3 inputs)",
    "kaiming": "He et al. 2015: normal, of the variance 2 / inputs",
    "xavier": "Glorot and Bengio 2010: uniform, of the variance 2 / (inputs + outputs)",
    "normal": "normal, of the deviation 0.02, as GANs have it",
}


def begun(network, how, frozen):
    from torch import nn

    draw = {
        "kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
        "xavier": nn.init.xavier_uniform_,
        "normal": lambda weight: nn.init.normal_(weight, std=0.02),
    }
    layers = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    kept = {layer for name in frozen for layer in network.get_submodule(name).modules()}
    for layer in (module for module in network.modules() if isinstance(module, layers) and module not in kept):
        if not (isinstance(layer.weight, nn.Parameter) and layer.weight.requires_grad and layer.weight.any()):
            continue
        if how == "torch":
            layer.reset_parameters()
        else:
            draw[how](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def always_frozen(spec):
    stages = [stage for stage in spec.schedule(PRESETS["first"]) if not stage.measures]
    return set.intersection(*(set(stage.frozen) for stage in stages))


def rebuilt(spec, how):
    @wraps(spec.build)  # its code counts, too
    def first(**given):
        return begun(spec.build(**given), how, always_frozen(spec))

    return first


@hookimpl
def register_models(register):
    for spec in plugins.load().specs["model"].values():
        if spec.parent is None and spec.schedule is not untrained:
            for how, what in WEIGHTS.items():
                variant = replace(spec.variant(f"init-{how}"), build=rebuilt(spec, how))
                register(replace(variant, summary=f"{spec.name} with first weights by {what}"))
