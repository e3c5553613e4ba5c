"""MATLAB files without a format of their own: a matrix, and times in tables of cells and structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from xsite.data.files import check_file
from xsite.errors import FormatError
from xsite.recording import Float


def load_mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file up to version 7.2, structures as objects with attributes.

    Raises
    ------
    FormatError
        The file is absent, a pointer, damaged, or of version 7.3 (HDF5).
    """
    try:
        content = scipy.io.loadmat(check_file(path), squeeze_me=True, struct_as_record=False)
    except NotImplementedError as error:
        raise FormatError(f"{path}: MATLAB 7.3 (HDF5); save it again with -v7 to read it here") from error
    except FormatError:
        raise
    except Exception as error:  # scipy raises all sorts on damaged files
        raise FormatError(f"{path}: cannot be read ({type(error).__name__}: {error}); fetch it again") from error
    return {name: value for name, value in content.items() if not name.startswith("__")}


def the_matrix(path: Path, *, variable: str | None = None, n_rows: int | None = None) -> Float:
    """Return the channels x samples matrix of a file as float64.

    Parameters
    ----------
    path : Path
    variable : str, optional
        Its name; otherwise the one two-dimensional numeric variable that fits.
    n_rows : int, optional
        Wanted number of channels; a matrix with as many columns is transposed.

    Raises
    ------
    FormatError
        The file cannot be read, or there is not exactly one such matrix; the message lists the variables.
    """
    content = load_mat(path)
    matrices = {
        name: value
        for name, value in content.items()
        if isinstance(value, np.ndarray) and value.ndim == 2 and value.dtype.kind in "fiu" and variable in (None, name)
    }
    if n_rows is not None:
        matrices = {name: value for name, value in matrices.items() if n_rows in value.shape}
    if len(matrices) != 1:
        wanted = f"called {variable!r}" if variable else f"with {n_rows} channels"
        shapes = ", ".join(f"{name} {getattr(value, 'shape', '')}" for name, value in content.items())
        raise FormatError(f"{path}: {len(matrices)} matrices {wanted}; variables: {shapes or 'none'}")
    found = next(iter(matrices.values()))
    transposed = found.shape[0] > found.shape[1] if n_rows is None else found.shape[0] != n_rows
    return np.array(found.T if transposed else found, dtype=np.float64, order="C")
