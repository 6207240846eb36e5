"""edgecv's own networks: the classics timm lacks, a fast teacher and a small student for 32-pixel images."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from torch import nn

from edgecv.errors import UsageError, nearest

MAX_WIDTH = 16.0
"""Times the published width: enough for any study, too little to exhaust memory by a hostile file."""

MAX_INPUT_PX = 4096

CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
"""Of the 50,000 training images of CIFAR-10, per channel, pixels scaled to 0..1."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class OwnNetwork:
    """One of edgecv's networks.

    Attributes:
        target: ``module:function`` of the builder; it takes ``num_classes``, ``input_size`` (pixels of the square
            input) and arguments of its own, and gives a module from ``(N, 3, H, W)`` to logits ``(N, num_classes)``.
        input_size: Pixels of a side of the input, unless asked otherwise.
        classes: Unless asked otherwise.
        paper: Where the network comes from.
    """

    target: str
    input_size: int
    classes: int
    paper: str


_HERE = "edgecv.nn.networks"

NETWORKS: dict[str, OwnNetwork] = {
    "mlp": OwnNetwork(f"{_HERE}.mlp:mlp", 28, 10, "LeCun et al. 1998, Proc. IEEE 86:2278 (300-100 hidden units)"),
    "lenet5": OwnNetwork(f"{_HERE}.lenet:lenet5", 32, 10, "LeCun et al. 1998, Proc. IEEE 86:2278"),
    "alexnet": OwnNetwork(f"{_HERE}.imagenet:alexnet", 224, 1000, "Krizhevsky 2014, arXiv:1404.5997"),
    "googlenet": OwnNetwork(f"{_HERE}.imagenet:googlenet", 224, 1000, "Szegedy et al. 2015, CVPR"),
    "squeezenet1_0": OwnNetwork(f"{_HERE}.imagenet:squeezenet1_0", 224, 1000, "Iandola et al. 2016, arXiv:1602.07360"),
    "squeezenet1_1": OwnNetwork(f"{_HERE}.imagenet:squeezenet1_1", 224, 1000, "Iandola et al. 2016, arXiv:1602.07360"),
    "plain20": OwnNetwork(f"{_HERE}.residual:plain20", 32, 10, "He et al. 2015, arXiv:1512.03385, section 4.2"),
    "plain56": OwnNetwork(f"{_HERE}.residual:plain56", 32, 10, "He et al. 2015, arXiv:1512.03385, section 4.2"),
    "residual20": OwnNetwork(f"{_HERE}.residual:residual20", 32, 10, "He et al. 2015, arXiv:1512.03385, section 4.2"),
    "residual56": OwnNetwork(f"{_HERE}.residual:residual56", 32, 10, "He et al. 2015, arXiv:1512.03385, section 4.2"),
    "highway19": OwnNetwork(f"{_HERE}.highway:highway19", 32, 10, "Srivastava et al. 2015, arXiv:1507.06228, table 2"),
    "speednet": OwnNetwork(f"{_HERE}.speednet:speednet", 32, 10, "after Jordan 2024, arXiv:2404.00498"),
    "dsnet": OwnNetwork(f"{_HERE}.dsnet:dsnet", 32, 10, "after Howard et al. 2017, arXiv:1704.04861, for small images"),
}
"""Every network of edgecv's own, by name."""


def build_own(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build one of :data:`NETWORKS` with the weights its constructor draws.

    Raises:
        UsageError: An argument the network does not have, or a value out of range.
    """
    own = NETWORKS[name]
    function = builder(name)
    known = inspect.signature(function).parameters
    for key in arguments:
        if key not in known:
            raise UsageError(f"'{name}' has no argument '{key}'; it takes {', '.join(known)}.{nearest(key, known)}")
    given = {"num_classes": own.classes, "input_size": own.input_size, **arguments}
    try:
        module: nn.Module = function(**given)
    except (TypeError, ValueError, RuntimeError) as e:
        shown = ", ".join(f"{k}={v!r}"[:40] for k, v in given.items())
        raise UsageError(f"'{name}' cannot be built with {shown}: {' '.join(str(e).split())[:200]}.") from e
    return module


def builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds ``name``."""
    path, _, function = NETWORKS[name].target.partition(":")
    built: Callable[..., nn.Module] = getattr(import_module(path), function)
    return built


def preprocessing(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of ``name`` in timm's words; the small ones take an image whole, normalised as CIFAR-10."""
    small = NETWORKS[name].input_size < 96
    side = arguments.get("input_size", NETWORKS[name].input_size)
    return {
        "input_size": (3, side, side),
        "mean": CIFAR_MEAN if small else IMAGENET_MEAN,
        "std": CIFAR_STD if small else IMAGENET_STD,
        "interpolation": "bilinear",
        "crop_pct": 1.0 if side < 96 else 0.875,
        "crop_mode": "center",
    }


def check_number(name: str, value: object, lowest: float, highest: float, *, whole: bool = False) -> None:
    """Raise ValueError unless ``value`` is a number (``whole``: an integer) within the two bounds."""
    kind = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kind) or not lowest <= value <= highest:
        raise ValueError(f"{name} {value!r} is not {'a whole number' if whole else 'a number'} in {lowest}..{highest}")


def check_input_px(input_size: object, lowest: int = 8) -> None:
    """Raise ValueError unless ``input_size`` is a number of pixels this network can take."""
    check_number("input_size", input_size, lowest, MAX_INPUT_PX, whole=True)
