"""One recording from its source files to the shared format. Plain Python: the cluster calls it, it knows no cluster."""

from __future__ import annotations

from typing import Any

import mne
import numpy as np

from xsite.data.bids import marker_onsets, read_bold, read_eeg
from xsite.data.fingerprint import sha256, source_files
from xsite.data.parcel_targets import parcel_targets, truth_series
from xsite.data.versions import software_versions
from xsite.data.windows import window_starts
from xsite.errors import SiteError
from xsite.recording import Recording
from xsite.signals.align import Alignment, align, align_without_markers
from xsite.signals.eeg import CleanEeg, clean_eeg
from xsite.signals.gradient import remove_gradient
from xsite.signals.parcels import Atlas
from xsite.signals.quality import quality_figures
from xsite.site import BoldRun, RecordingFiles, Site

SFREQ_TOLERANCE = 0.01


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
    parcellation, clean, parcels = parcel_targets(bold, atlas, files)
    facts = {
        "site": {name: getattr(site, name) for name in ("eeg_state", "reference", "line_freq", "doi", "license")},
        "sources": [{"file": path.name, "sha256": sha256(path)} for path in source_files(files)],
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
        truth=truth_series(files, parcellation, clean, bold.n_volumes),
        provenance=facts,
        quality=quality,
    )
    if len(window_starts(recording)[0]) == 0:  # kept, so that its quality can be looked at, but not for training
        facts["excluded"] = "no volume has 16 s of valid EEG before it"
    return recording


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
