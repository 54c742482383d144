"""Hydra configs that recipes build on."""
