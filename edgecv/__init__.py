"""From a PyTorch checkpoint to a verified, fast, small ONNX model on a given device."""

__version__ = "0.1.0"
