"""A multilayer perceptron."""

from itertools import pairwise

from torch import nn

from edgecv.nn.networks import check_input_px, check_number


def mlp(
    num_classes: int = 10, input_size: int = 28, hidden: str | int = "300x100", in_channels: int = 3
) -> nn.Sequential:
    """Return pixels → hidden layers with ReLU → logits.

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side.
        hidden: Units of the hidden layers: ``"300x100"`` is LeNet-300-100, 266,610 parameters on 28x28 gray images
            (LeCun et al. 1998, Proc. IEEE 86:2278, section III.C).
        in_channels: Colours.
    """
    check_input_px(input_size, 1)
    check_number("in_channels", in_channels, 1, 16, whole=True)
    widths = [int(part) for part in str(hidden).split("x")]
    for width in widths:
        check_number("hidden", width, 1, 16_384, whole=True)
    check_number("layers of hidden", len(widths), 1, 64)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise([in_channels * input_size**2, *widths]):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
