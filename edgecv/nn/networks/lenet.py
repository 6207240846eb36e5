"""LeNet-5."""

from collections import OrderedDict

from torch import nn

from edgecv.nn.networks import check_input_px, check_number


def lenet5(num_classes: int = 10, input_size: int = 32, in_channels: int = 3) -> nn.Sequential:
    """Return LeNet-5 as it is used today: full connections between C1 and C3, max pooling, ReLU.

    61,706 parameters on 32x32 gray images. Source: LeCun et al. 1998, Proc. IEEE 86:2278, figure 2; the original's
    sparse C3 and trained pooling make it 60,000.

    Args:
        num_classes: Length of the logits.
        input_size: Pixels of a side, 16 or more.
        in_channels: Colours.
    """
    check_input_px(input_size, 16)
    check_number("in_channels", in_channels, 1, 16, whole=True)
    side = ((input_size - 4) // 2 - 4) // 2
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(in_channels, 6, 5),
            act1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            act2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(16 * side**2, 120),
            act3=nn.ReLU(),
            fc2=nn.Linear(120, 84),
            act4=nn.ReLU(),
            classifier=nn.Linear(84, num_classes),
        )
    )
