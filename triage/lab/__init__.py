"""Training, evaluation and export of the networks. The only package that may import torch."""
