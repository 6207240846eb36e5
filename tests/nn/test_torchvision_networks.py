import math

import pytest
import torchvision

from edgecv.nn.network import crop_share
from edgecv.nn.torchvision_networks import torchvision_names


@pytest.mark.parametrize("name", torchvision_names())
def test_the_crop_share_of_every_torchvision_network_restores_its_resize(name: str) -> None:
    preset = torchvision.models.get_model_weights(name.removeprefix("torchvision:")).DEFAULT.transforms()
    size, resize = preset.crop_size[0], preset.resize_size[0]
    assert math.floor(size / crop_share(size, resize)) == resize
