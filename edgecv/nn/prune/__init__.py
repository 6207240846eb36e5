"""Pruning: fewer channels and heads (a smaller network), or fewer weights (a smaller file)."""
