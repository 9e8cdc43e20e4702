"""divwatch: output diversity, watched while a language model is post-trained.

Nothing heavy is imported until it is used: `import divwatch` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "watch": "divwatch.callback",
    "DiversityCallback": "divwatch.callback",
    "WatchConfig": "divwatch.config",
    "CollapseDetector": "divwatch.analysis.detector",
    "decompose": "divwatch.analysis.decompose",
    "stage_attribution": "divwatch.analysis.stages",
    "DivwatchError": "divwatch.errors",
}
__all__ = [
    "CollapseDetector",
    "DiversityCallback",
    "DivwatchError",
    "WatchConfig",
    "__version__",
    "decompose",
    "stage_attribution",
    "watch",
]

if TYPE_CHECKING:
    from divwatch.analysis.decompose import decompose
    from divwatch.analysis.detector import CollapseDetector
    from divwatch.analysis.stages import stage_attribution
    from divwatch.callback import DiversityCallback, watch
    from divwatch.config import WatchConfig
    from divwatch.errors import DivwatchError


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'divwatch' has no attribute {name!r}")
