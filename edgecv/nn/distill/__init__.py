"""Distillation: losses, teachers of either kind, hints between features, and the objective the training loop takes."""
