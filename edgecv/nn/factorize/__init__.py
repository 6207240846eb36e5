"""Factorization: one convolution or linear layer becomes two to four cheaper ones with nearly the same answer."""
