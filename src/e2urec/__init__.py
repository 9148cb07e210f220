"""Make an LLM-based recommender forget users, and show that it did.

E2URec (arXiv 2403.03536), its rivals, and the evidence. The public names are listed in
`__init__.pyi`. Each is imported when it is first asked for, so that a command which needs no model
does not wait for one to be importable.
"""

import lazy_loader

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
