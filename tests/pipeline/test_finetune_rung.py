from types import SimpleNamespace

import pytest
from small_graphs import small_model

from edgecv.errors import UsageError
from edgecv.pipeline.quantize_int8 import _finetune_rung
from edgecv.progress import no_progress

GROUND = SimpleNamespace(
    batches=None, n_images=0, seed=0, basis=SimpleNamespace(scheme=SimpleNamespace(activations=""))
)


def test_a_network_that_torch_is_not_taught_is_an_error_only_when_fine_tuning_was_asked_for() -> None:
    own = small_model("d = Det(image) y = Flatten(d)", {})
    position = SimpleNamespace(own=own, draft=None)
    assert _finetune_rung(pinned=False)(GROUND, position, no_progress) is None  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="operator Det"):
        _finetune_rung(pinned=True)(GROUND, position, no_progress)  # type: ignore[arg-type]
