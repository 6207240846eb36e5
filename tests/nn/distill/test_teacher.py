from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY_LABELS, build_tiny_model
from torch import nn

from edgecv.errors import UsageError
from edgecv.manifest import InputSpec
from edgecv.nn.checkpoint import save_network
from edgecv.nn.distill.teacher import class_columns, open_teacher, resize, teacher_of
from edgecv.nn.models import build_untrained
from edgecv.nn.network import Network
from edgecv.runtime import Model

SPEC = InputSpec("image", (3, 8, 8), (0.5,) * 3, (0.5,) * 3, layout="NCHW", dtype="float32")


def teacher(labels=(), classes=3):
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, classes))
    return teacher_of(Network(module, "linear", SPEC, labels, (), {}, 0))


def test_an_onnx_teacher_answers_as_in_the_runtime(tmp_path):
    path = build_tiny_model(tmp_path / "tiny.onnx")
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    asked = open_teacher(str(path)).ask(torch.from_numpy(images).permute(0, 3, 1, 2))
    with Model.load(path) as model:
        answered = [model(image) for image in images]
    assert [TINY_LABELS[i] for i in asked.argmax(1).tolist()] == [a.label for a in answered]
    assert torch.softmax(asked, 1).max(1).values.tolist() == pytest.approx([a.probability for a in answered], rel=1e-4)


def test_a_checkpoint_teaches_with_its_own_weights(tmp_path):
    network = build_untrained("lenet5", num_classes=3)
    save_network(tmp_path / "t.safetensors", network)
    pixels = torch.full((2, 3, 32, 32), 100.0)
    opened = open_teacher(str(tmp_path / "t.safetensors"))
    assert opened.classes == 3
    assert torch.equal(opened.ask(pixels), teacher_of(network).ask(pixels))
    assert not any(p.requires_grad for p in opened.module.parameters())


def test_classes_are_matched_by_name():
    assert class_columns(teacher(TINY_LABELS), sorted(TINY_LABELS)) == [2, 1, 0]
    assert class_columns(teacher(TINY_LABELS), TINY_LABELS) is None
    assert class_columns(teacher((*TINY_LABELS, "gray"), 4), TINY_LABELS) == [0, 1, 2]


def test_a_teacher_that_does_not_know_a_class_is_refused():
    with pytest.raises(UsageError, match="'purple' matches none"):
        class_columns(teacher(TINY_LABELS), ["red", "purple"])
    with pytest.raises(UsageError, match="3 classes without names, the data 2"):
        class_columns(teacher(), ["a", "b"])


def test_the_same_number_of_nameless_classes_is_taken_in_order():
    assert class_columns(teacher(), ["a", "b", "c"]) is None


def test_pixels_are_resized_for_the_teacher_and_stay_pixels():
    pixels = torch.randint(0, 256, (1, 3, 20, 20)).float()
    for side in (8, 33):
        sized = resize(pixels, replace(SPEC, input_size=(3, side, side)))
        assert sized.shape == (1, 3, side, side)
        assert 0 <= sized.min() <= sized.max() <= 255
        assert sized.mean().item() == pytest.approx(pixels.mean().item(), abs=4)
