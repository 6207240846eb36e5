"""What runs in the app: decode, preprocess, run, label; needs numpy, Pillow and ONNX Runtime only."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecv.runtime.model import Model, Prediction

__all__ = ["Model", "Prediction"]


def __getattr__(name: str) -> Any:
    """Load the model classes when first asked for: the command line imports this package for less."""
    if name in __all__:
        from edgecv.runtime import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
