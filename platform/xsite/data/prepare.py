"""One recording from its source files to the shared format. Plain Python: the cluster calls it, it knows no cluster."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import mne
import numpy as np

from xsite.data.bids import marker_onsets, read_bold, read_eeg
from xsite.data.files import check_file, eeg_companions, numbers, read_tsv
from xsite.data.readers import sidecar_paths
from xsite.data.store import FORMAT_VERSION
from xsite.data.versions import software_versions
from xsite.data.windows import window_starts
from xsite.errors import FormatError, SiteError
from xsite.recording import Float, Parcellation, Recording
from xsite.signals.align import Alignment, align, align_without_markers
from xsite.signals.bold import CleanBold, RawParcels, clean_like, clean_parcels, image_to_parcels
from xsite.signals.eeg import CleanEeg, clean_eeg
from xsite.signals.gradient import remove_gradient
from xsite.signals.parcels import Atlas
from xsite.signals.quality import quality_figures
from xsite.site import BoldRun, RecordingFiles, Site

SFREQ_TOLERANCE = 0.01
HASH_BLOCK = 1 << 22


def prepare_recording(*, site: Site, files: RecordingFiles, atlas: Atlas | None, sfreq: float = 200.0) -> Recording:
    """Read, align and clean one simultaneous run.

    Parameters
    ----------
    site : Site
    files : RecordingFiles
    atlas : Atlas, optional
        Target parcellation; None only where the site publishes ready-made parcel series.
    sfreq : float
        EEG sampling frequency of the shared format in Hz.

    Raises
    ------
    RecordingError
        A file cannot be used (format, channels, alignment); the message names it.
    ParcellationError
        The atlas does not fit the image.
    SiteError
        The site's facts contradict its files.
    """
    with mne.utils.use_log_level("error"):
        raw = (site.read_eeg or read_eeg)(files, site)
        _check_sfreq(raw, site, files)
        bold = (site.read_bold or read_bold)(files, site)
        alignment = _aligned(raw, bold, site, files)
        eeg, gradient_steps = _cleaned(raw, alignment, bold, site, files, sfreq)
    parcellation, clean, parcels = _targets(bold, atlas, files)
    facts = {
        "site": {name: getattr(site, name) for name in ("eeg_state", "reference", "line_freq", "doi", "license")},
        "sources": [{"file": path.name, "sha256": _sha256(path)} for path in source_files(files)],
        "steps": [*gradient_steps, *eeg.steps, *clean.steps],
        "alignment": _alignment_facts(alignment, bold),
        "versions": software_versions(),
    }
    quality = quality_figures(
        eeg_CT=eeg.eeg_CT,
        eeg_valid_T=eeg.valid_T,
        sfreq=sfreq,
        line_freq=site.line_freq,
        bold_VR=clean.bold_VR,
        volume_valid_V=alignment.volume_valid,
        fd_V=clean.fd_V,
        alignment=alignment,
        parcels=parcels,
        n_flat=len(eeg.flat),
    )
    recording = Recording(
        key=files.key,
        montage=eeg.montage,
        parcellation=parcellation,
        eeg=eeg.eeg_CT,
        eeg_valid=eeg.valid_T,
        bold=clean.bold_VR,
        global_signal=clean.global_signal_V,
        confounds=clean.confounds_VK,
        confound_names=clean.confound_names,
        volume_onsets=alignment.volume_onsets,
        volume_valid=alignment.volume_valid,
        sfreq=sfreq,
        t_r=bold.t_r,
        bold_units=bold.units,
        truth=_truth(files, parcellation, clean, bold.n_volumes),
        provenance=facts,
        quality=quality,
    )
    if len(window_starts(recording)[0]) == 0:  # kept, so that its quality can be looked at, but not for training
        facts["excluded"] = "no volume has 16 s of valid EEG before it"
    return recording


def input_fingerprint(
    site: Site, files: RecordingFiles, atlas: Atlas | None, settings: Mapping[str, Any] | None = None
) -> str:
    """Hash of everything that a prepared recording depends on: same fingerprint, nothing to do.

    Parameters
    ----------
    site : Site
    files : RecordingFiles
    atlas : Atlas, optional
    settings : mapping, optional
        Keyword arguments of :func:`prepare_recording`, such as ``{"sfreq": 200.0}``.

    Raises
    ------
    FormatError
        A source file is absent, empty, or a pointer to data that were not fetched.
    """
    parcellation = None if atlas is None else atlas.parcellation
    facts = {field.name: _named(getattr(site, field.name)) for field in fields(Site)}
    content = {
        "format": FORMAT_VERSION,
        "site": facts,
        "atlas": None if parcellation is None else asdict(parcellation),  # the hash is of the image, not of its names
        "settings": {"sfreq": 200.0, **(settings or {})},
        "sources": [[path.name, _sha256(path)] for path in map(check_file, source_files(files))],
        "versions": software_versions(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def source_files(files: RecordingFiles) -> list[Path]:
    """Every file that a recording is made from: data, headers, markers, sidecars."""
    stem = files.eeg.name.removesuffix(files.eeg.suffix).removesuffix("_eeg")
    events, sidecar = (files.eeg.with_name(f"{stem}_{end}") for end in ("events.tsv", "eeg.json"))
    optional = [path for path in (events, sidecar) if path.is_symlink() or (path.is_file() and path.stat().st_size)]
    tables = [path for path in (files.confounds, files.truth) if path is not None]
    images = [files.bold, *sidecar_paths(files.bold, files.key)]
    return [files.eeg, *eeg_companions(files.eeg), *images, *optional, *tables]


def _named(value: Any) -> Any:
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else value


def _sha256(path: Path) -> str:
    state = path.stat()
    return _sha256_of(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256_of(path: Path, size: int, mtime_ns: int) -> str:
    """Hash a file once per process: the fingerprint and the provenance both want it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _check_sfreq(raw: Any, site: Site, files: RecordingFiles) -> None:
    found = float(raw.info["sfreq"])
    if abs(found / site.sfreq - 1) > SFREQ_TOLERANCE:
        raise SiteError(
            f"{files.eeg}: EEG at {found:g} Hz, but site {site.name!r} says {site.sfreq:g} Hz; correct sfreq of the "
            "site, or give these files a site of their own"
        )


def _aligned(raw: Any, bold: BoldRun, site: Site, files: RecordingFiles) -> Alignment:
    clock: dict[str, Any] = {
        "n_volumes": bold.n_volumes,
        "t_r": bold.t_r,
        "start_time": bold.start_time,
        "eeg_duration": raw.n_times / float(raw.info["sfreq"]),
        "source": str(files.eeg),
    }
    if site.volume_marker is None:
        return align_without_markers(**clock)
    names, counts = np.unique(raw.annotations.description, return_counts=True)
    found = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    return align(
        marker_onsets(raw, site.volume_marker),
        found_markers=found,
        extra_markers=site.extra_markers,
        missing_markers=site.missing_markers,
        **clock,
    )


def _alignment_facts(alignment: Alignment, bold: BoldRun) -> dict[str, Any]:
    return {
        "verdict": alignment.verdict,
        "evidence": list(alignment.evidence),
        "t_r_found": alignment.t_r_found,
        "jitter_ms": alignment.jitter_ms,
        "start_time": bold.start_time,
    }


def _cleaned(
    raw: Any, alignment: Alignment, bold: BoldRun, site: Site, files: RecordingFiles, sfreq: float
) -> tuple[CleanEeg, list[dict[str, Any]]]:
    if site.eeg_state != "raw":
        return clean_eeg(raw, site, sfreq=sfreq, source=str(files.eeg)), []
    acquired = alignment.triggers[alignment.volume_valid]
    raw, valid_T, steps = remove_gradient(raw, acquired, bold.t_r, source=str(files.eeg))
    return clean_eeg(raw, site, sfreq=sfreq, valid_T=valid_T, source=str(files.eeg)), steps


def _targets(
    bold: BoldRun, atlas: Atlas | None, files: RecordingFiles
) -> tuple[Parcellation, CleanBold, RawParcels | None]:
    if bold.series_VR is not None:
        return _published(bold, bold.series_VR, atlas, files)
    if atlas is None:
        raise FormatError(f"{files.bold}: an image needs an atlas; pass one (--atlas FILE.nii.gz with its .tsv)")
    parcels = image_to_parcels(bold.image, atlas, source=str(files.bold))
    clean = clean_parcels(
        parcels.series_VR, bold.confounds_VK, bold.confound_names, bold.t_r, global_signal_V=parcels.global_signal_V
    )
    return atlas.parcellation, clean, parcels


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
        return parcellation, _regressed(bold, series_VR), None
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


def _regressed(bold: BoldRun, series_VR: Float) -> CleanBold:
    return clean_parcels(
        series_VR, bold.confounds_VK, bold.confound_names, bold.t_r, global_signal_V=bold.global_signal_V
    )


def _truth(files: RecordingFiles, parcellation: Parcellation, clean: CleanBold, n_volumes: int) -> Float | None:
    """Noise-free series of a phantom, with the same trend and confounds taken out as from the measured ones."""
    if files.truth is None:
        return None
    table = read_tsv(files.truth)
    missing = [label for label in parcellation.labels if label not in table]
    if missing or len(table) != n_volumes:
        raise FormatError(
            f"{files.truth}: {len(table)} rows for {n_volumes} volumes; parcels without a column: {missing or 'none'}"
        )
    return clean_like(numbers(table, parcellation.labels, files.truth).to_numpy(), clean.design_VP)
