# Copyright 2026 The vilau_hf authors. Licensed under the Apache License, Version 2.0.
"""How models of this package have their weights initialised."""


class LibraryInitialization:
    """
    For models all of whose initialisation goes through `transformers.initialization`: the library treats them like its
    own, and not like code that writes over what was loaded.
    """

    @classmethod
    def is_custom_code(cls) -> bool:
        """No, as far as the initialisation of weights is concerned."""
        return False


__all__ = ["LibraryInitialization"]
