"""colorbench trains and compares image colorization models on one harness, under one written protocol.

Names are imported on first use, from where `__init__.pyi` says: `import colorbench` costs no torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
