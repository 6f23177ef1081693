"""SciPy's special functions, imported when one of them is first called.

Importing `scipy.special` takes longer than importing all of this package, and a command that only
reads or lists need not wait for it. Use them as ``special.ndtri(...)``; a name that is imported
from here is looked up, and SciPy imported, at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "betainc",
    "betaincc",
    "betaincinv",
    "betaln",
    "chdtri",
    "gammainc",
    "gammaincinv",
    "gammaln",
    "log_ndtr",
    "ndtr",
    "ndtri",
    "stdtrit",
    "xlog1py",
    "xlogy",
]

if TYPE_CHECKING:
    from scipy.special import (
        betainc,
        betaincc,
        betaincinv,
        betaln,
        chdtri,
        gammainc,
        gammaincinv,
        gammaln,
        log_ndtr,
        ndtr,
        ndtri,
        stdtrit,
        xlog1py,
        xlogy,
    )


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    import scipy.special  # noqa: PLC0415 - this module is here to put it off

    function = getattr(scipy.special, name)
    globals()[name] = function
    return function
