"""ONNX graphs: load, check, rewrite. One transformation, one module; ``passes.py`` lists them."""
