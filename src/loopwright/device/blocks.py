"""`find_blocks` and `search_blocks`: find the repeated blocks of a model, such as the layers of a transformer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import nn

from loopwright.errors import SettingError, did_you_mean, refuse


def find_blocks(model: nn.Module, class_names: Sequence[str] | None = None) -> list[nn.Module]:
    """Return the repeated blocks of a model. Blocks of one class can share their compiled code.

    Without ``class_names``, the first of these rules that finds modules determines the result:

    1. the modules returned by the method ``repeated_blocks()`` of the model, or of the first of its modules that has
       this method;
    2. the modules whose class names are in ``_no_split_modules``, an attribute of Hugging Face models;
    3. the modules of the longest `torch.nn.ModuleList` with two or more modules, all of one class.

    Args:
        model: model to search. Only the modules are inspected, so the parameters may be on the meta device.
        class_names: class names of the blocks.

    Raises:
        SettingError: if the model has no module of a class in ``class_names``, or if no rule finds blocks.
    """
    blocks = search_blocks(model, class_names)
    if not blocks:
        problem = f"no repeated blocks were found in {type(model).__name__}"
        remedy = "use compile=model, or give the class names of the blocks in device.blocks"
        raise SettingError("device.compile", f"=blocks: {problem}; {remedy}.")
    return blocks


def search_blocks(model: nn.Module, class_names: Sequence[str] | None = None) -> list[nn.Module]:
    """Return the repeated blocks of a model by the rules of `find_blocks`, or an empty list if no rule finds blocks.

    Raises:
        SettingError: if the model has no module of a class in ``class_names``.
    """
    modules = list(model.modules())
    if class_names is not None:
        present = dict.fromkeys(type(module).__name__ for module in modules)
        for name in class_names:
            if name not in present:
                expected = f"class names of modules in {type(model).__name__}"
                raise refuse("device.blocks", list(class_names), expected, did_you_mean(name, present).strip())
        return _of_classes(modules, class_names)
    return _own_blocks(modules) or _unsplit(modules) or _longest_list(modules)


def _of_classes(modules: Sequence[nn.Module], names: Collection[str]) -> list[nn.Module]:
    return [module for module in modules if type(module).__name__ in names]


def _own_blocks(modules: Sequence[nn.Module]) -> list[nn.Module]:
    for module in modules:
        own = getattr(module, "repeated_blocks", None)
        if callable(own):
            return list(own())
    return []


def _unsplit(modules: Sequence[nn.Module]) -> list[nn.Module]:
    names = {name for module in modules for name in getattr(module, "_no_split_modules", None) or ()}
    return _of_classes(modules, names)


def _longest_list(modules: Sequence[nn.Module]) -> list[nn.Module]:
    lists = [list(module) for module in modules if isinstance(module, nn.ModuleList)]
    repeated = [each for each in lists if len(each) > 1 and len({type(block) for block in each}) == 1]
    return max(repeated, key=len, default=[])
