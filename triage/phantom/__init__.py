"""Synthetic diffusion studies whose ASPECTS is known by construction."""
