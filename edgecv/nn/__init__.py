"""Networks in PyTorch: build, load weights, export. The only folder that imports torch, torchvision and timm."""
