"""From what a site publishes of its BOLD (an image, or ready-made parcel series) to cleaned parcel series."""

from __future__ import annotations

import hashlib

import numpy as np

from xsite.data.files import numbers, read_tsv
from xsite.errors import FormatError
from xsite.recording import Float, Parcellation
from xsite.signals.bold import RawParcels, image_to_parcels
from xsite.signals.bold_cleaning import CleanBold, clean_like, clean_parcels
from xsite.signals.parcels import Atlas
from xsite.site import BoldRun, RecordingFiles


def parcel_targets(
    bold: BoldRun, atlas: Atlas | None, files: RecordingFiles
) -> tuple[Parcellation, CleanBold, RawParcels | None]:
    """Cleaned parcel series of a run, and the uncleaned ones where they come from an image.

    Raises
    ------
    FormatError
        An image without an atlas, or a table whose values or columns do not serve.
    ParcellationError
        The atlas does not fit the image.
    """
    if bold.series_VR is not None:
        return _published(bold, bold.series_VR, atlas, files)
    if atlas is None:
        raise FormatError(f"{files.bold}: an image needs an atlas; pass one (--atlas FILE.nii.gz with its .tsv)")
    parcels = image_to_parcels(bold.image, atlas, source=str(files.bold), valid_V=bold.volume_valid_V)
    return atlas.parcellation, _cleaned(bold, parcels.series_VR, parcels.global_signal_V, files), parcels


def _published(
    bold: BoldRun, series_VR: Float, atlas: Atlas | None, files: RecordingFiles
) -> tuple[Parcellation, CleanBold, None]:
    """Ready-made series: taken as published, unless they bring confounds of their own."""
    digest = hashlib.sha256("\n".join(bold.labels).encode()).hexdigest()
    parcellation = Parcellation(f"parcel-table-{len(bold.labels)}", bold.labels, "as published", digest)
    if atlas is not None:
        missing = sorted(set(atlas.parcellation.labels) - set(bold.labels))
        if missing:
            raise FormatError(
                f"{files.bold}: the table lacks {len(missing)} parcels of the atlas, such as {missing[:3]}"
            )
        parcellation = atlas.parcellation
        series_VR = series_VR[:, [bold.labels.index(label) for label in parcellation.labels]]
    if not np.isfinite(series_VR).all():
        raise FormatError(
            f"{files.bold}: the parcel series hold {int((~np.isfinite(series_VR)).sum())} values not finite"
        )
    n_volumes = len(series_VR)
    if bold.confounds_VK is not None:
        return parcellation, _cleaned(bold, series_VR, bold.global_signal_V, files), None
    unknown_V = np.full(n_volumes, np.nan, np.float32)
    global_V = unknown_V if bold.global_signal_V is None else np.asarray(bold.global_signal_V, np.float32)
    clean = CleanBold(
        bold_VR=np.asarray(series_VR, np.float32),
        global_signal_V=global_V,
        confounds_VK=np.empty((n_volumes, 0), np.float32),
        confound_names=(),
        fd_V=unknown_V,
        design_VP=np.zeros((n_volumes, 0)),
        steps=[{"step": "parcel series as published", "units": bold.units}],
    )
    return parcellation, clean, None


def _cleaned(bold: BoldRun, series_VR: Float, global_signal_V: Float | None, files: RecordingFiles) -> CleanBold:
    try:
        return clean_parcels(
            series_VR,
            bold.confounds_VK,
            bold.confound_names,
            bold.t_r,
            global_signal_V=global_signal_V,
            regressors=bold.regressors,
            valid_V=bold.volume_valid_V,
        )
    except FormatError as error:  # it knows no file
        raise FormatError(f"{files.confounds or files.bold}: {error}; choose other confounds for this site") from error


def truth_series(files: RecordingFiles, parcellation: Parcellation, clean: CleanBold, n_volumes: int) -> Float | None:
    """Noise-free series of a phantom, with the same trend and confounds taken out as from the measured ones."""
    if files.truth is None:
        return None
    table = read_tsv(files.truth)
    missing = [label for label in parcellation.labels if label not in table]
    if missing or len(table) != n_volumes:
        raise FormatError(
            f"{files.truth}: {len(table)} rows for {n_volumes} volumes; parcels without a column: {missing or 'none'}"
        )
    return clean_like(numbers(table, parcellation.labels, files.truth).to_numpy(), clean.design_VP, clean.fit_V)
