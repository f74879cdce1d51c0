"""maskwright: instance, semantic and panoptic segmentation in PyTorch. Importing it imports nothing heavy."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskwright.evaluate import evaluate
    from maskwright.infer.predictor import predict
    from maskwright.structures import Batch, Geometry, Images, Masks, Prompts, Resize, Scene, Segments, Taxonomy
    from maskwright.train import train
    from maskwright.zoo import load, models

    __version__: str

_HOMES = {"load": "zoo", "models": "zoo", "train": "train", "evaluate": "evaluate", "predict": "infer.predictor"}

__all__ = ["Batch", "Geometry", "Images", "Masks", "Prompts", "Resize", "Scene", "Segments", "Taxonomy"]
__all__ += ["__version__", "evaluate", "load", "models", "predict", "train"]


class _CallableModule(ModuleType):
    """A submodule named like a public function: ``mw.train(...)`` works also once ``maskwright.train`` is imported."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _function(self.__name__.rpartition(".")[2])(*args, **kwargs)


class _Root(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import system sets a submodule as an attribute here; that must not take the function of its name away.
        if name in _HOMES and type(value) is ModuleType:
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


def _function(name: str) -> Any:
    return getattr(import_module(f"maskwright.{_HOMES[name]}"), name)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return _function(name)
    if name == "__version__":
        return import_module("importlib.metadata").version("maskwright")
    if name in __all__:
        return getattr(import_module("maskwright.structures"), name)
    raise AttributeError(f"module 'maskwright' has no attribute {name!r}")


sys.modules[__name__].__class__ = _Root
