import pytest
import timm
import torch
from torch import nn

from edgecv.config.training import TrainSettings
from edgecv.errors import UsageError
from edgecv.nn.training.freezing import freeze, set_training_mode, stage_names
from edgecv.nn.training.optimizer import build_optimizer, set_learning_rate


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=3, depth=4)


def rates(module: nn.Module, settings: TrainSettings) -> dict[str, tuple[float, float]]:
    """Return (learning rate, weight decay) of each parameter."""
    optimizer = build_optimizer(module, None, settings, 1.0)
    set_learning_rate(optimizer, 1.0)
    names = {id(p): n for n, p in module.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_norms_biases_and_position_embeddings_have_no_weight_decay(vit: nn.Module) -> None:
    freeze(vit, TrainSettings())
    found = rates(vit, TrainSettings(optimizer="adamw", weight_decay=0.05))
    for name, (_, decay) in found.items():
        free = name.endswith(".bias") or "norm" in name or name in ("pos_embed", "cls_token")
        assert decay == (0 if free else 0.05), name


def test_layer_decay_makes_steps_smaller_towards_the_input(vit: nn.Module) -> None:
    freeze(vit, TrainSettings())
    found = rates(vit, TrainSettings(layer_decay=0.5))
    blocks = [found[f"blocks.{i}.mlp.fc1.weight"][0] for i in range(4)]
    assert blocks == sorted(blocks)
    assert blocks[0] == pytest.approx(blocks[1] * 0.5)
    assert found["head.weight"][0] == 1
    assert found["patch_embed.proj.weight"][0] < blocks[0]


def test_all_but_head_leaves_the_classifier(vit: nn.Module) -> None:
    freeze(vit, TrainSettings(freeze="all-but-head"))
    assert {n for n, p in vit.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}


def test_freeze_to_freezes_from_the_input_to_the_stage(vit: nn.Module) -> None:
    freeze(vit, TrainSettings(freeze_to="blocks.1"))
    frozen = {n for n, p in vit.named_parameters() if not p.requires_grad}
    assert {"patch_embed.proj.weight", "pos_embed", "blocks.0.attn.qkv.weight", "blocks.1.mlp.fc2.bias"} <= frozen
    assert not any(n.startswith(("blocks.2", "norm", "head")) for n in frozen)


def test_an_unknown_stage_gets_the_nearest_names(vit: nn.Module) -> None:
    assert "blocks.1" in stage_names(vit)
    with pytest.raises(UsageError, match=r"no stage 'block\.1'.*blocks\.1"):
        freeze(vit, TrainSettings(freeze_to="block.1"))


def test_freezing_everything_is_refused(vit: nn.Module) -> None:
    freeze(vit, TrainSettings(freeze_to="head"))
    with pytest.raises(UsageError, match="nothing to train"):
        build_optimizer(vit, None, TrainSettings(), 1.0)


def test_frozen_batch_norm_keeps_its_statistics_and_others_do_not() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    freeze(module, TrainSettings(freeze_to="1"))
    set_training_mode(module)
    before = [module[i].running_mean.clone() for i in (1, 3)]  # type: ignore[union-attr,operator]
    module(torch.randn(8, 3, 5, 5) + 3)
    after = [module[i].running_mean for i in (1, 3)]
    assert torch.equal(before[0], after[0])  # type: ignore[arg-type]
    assert not torch.equal(before[1], after[1])  # type: ignore[arg-type]
