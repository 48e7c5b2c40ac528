"""Shared code of the lessons. Start with `from utils import load_pretrained`."""

from .pipeline import load_pipeline
from .pretrained import available_models, load_pretrained

__all__ = ["available_models", "load_pipeline", "load_pretrained"]
