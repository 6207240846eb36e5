"""What runs in the app: decode, preprocess, run, label. Needs numpy, Pillow and ONNX Runtime, nothing else."""
