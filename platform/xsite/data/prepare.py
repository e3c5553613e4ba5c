"""One recording from its source files to the shared format. Plain Python: the cluster calls it, it knows no cluster."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import mne
import numpy as np

from xsite.data.bids import read_bold, read_eeg
from xsite.data.cleaning import cleaned
from xsite.data.files import sidecar_faults
from xsite.data.fingerprint import sha256, source_files
from xsite.data.markers import (
    first_marker,
    is_known,
    marker_onsets,
    marker_trains,
    published_start,
    reading_notes,
    time_breaks,
)
from xsite.data.parcel_targets import parcel_targets, truth_series
from xsite.data.privacy import Names
from xsite.data.versions import software_versions
from xsite.data.windows import window_starts
from xsite.errors import SiteError
from xsite.recording import Parcellation, Recording
from xsite.signals.align import Alignment, Repair, align, align_without_markers
from xsite.signals.artifact_figures import step_figures
from xsite.signals.bold import RawParcels
from xsite.signals.bold_cleaning import CleanBold
from xsite.signals.eeg import CleanEeg
from xsite.signals.parcels import Atlas
from xsite.signals.quality import quality_figures
from xsite.signals.scan_evidence import ScanEvidence, scan_evidence
from xsite.signals.summaries import marker_summary, published_spectrum
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
        alignment, scan = aligned(raw, bold, site, files)
        uncorrected = _uncorrected(raw, bold.t_r, site)
        eeg, eeg_steps = cleaned(raw, alignment, bold.t_r, site, sfreq=sfreq, source=str(files.eeg))
        summaries = _summaries(raw, eeg, alignment, site)
    parcellation, clean, parcels = parcel_targets(bold, atlas, files)
    volume_valid_V = alignment.volume_valid  # dummy and scrubbed volumes were acquired, but are neither input nor score
    if bold.volume_valid_V is not None:
        volume_valid_V = volume_valid_V & bold.volume_valid_V
    facts = {
        "site": {name: getattr(site, name) for name in ("eeg_state", "reference", "line_freq", "doi", "license")},
        "scanner": _scanner(bold, site),
        "population": site.population,
        "sources": [{"file": path.name, "sha256": sha256(path)} for path in source_files(files)],
        "sidecar_faults": sidecar_faults(source_files(files)),
        "steps": [*eeg_steps, *clean.steps],
        "alignment": _alignment_facts(alignment, scan, bold),
        "bold": {**bold.facts, "parcels_missing": _missing_parcels(parcellation, clean)},
        "versions": software_versions(),
        "summaries": {**summaries, **_parcel_summaries(parcels)},
    }
    quality = quality_figures(
        eeg_CT=eeg.eeg_CT,
        eeg_valid_T=eeg.valid_T,
        sfreq=sfreq,
        line_freq=site.line_freq,
        bold_VR=clean.bold_VR,
        volume_valid_V=volume_valid_V,
        fd_V=clean.fd_V,
        alignment=alignment,
        parcels=parcels,
        n_flat=len(eeg.flat),
        artifacts=step_figures(eeg_steps),
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
        volume_valid=volume_valid_V,
        sfreq=sfreq,
        t_r=bold.t_r,
        bold_units=bold.units,
        truth=truth_series(files, parcellation, clean, bold.n_volumes),
        provenance=facts,
        quality=quality,
    )
    if why := site.unusable or uncorrected or _without_windows(recording):  # stored with its story, never trained on
        facts["excluded"] = why
    heard = {"markers": raw.annotations.description, "channels": raw.ch_names, "confounds": bold.confound_names}
    return Names(site, files.key, source_files(files), **heard).private(recording)


def _without_windows(recording: Recording) -> str:
    return "" if len(window_starts(recording)[0]) else "no volume has 16 s of valid EEG before it"


def _summaries(raw: Any, eeg: CleanEeg, alignment: Alignment, site: Site) -> dict[str, Any]:
    """What the recording's page shows of the EEG file and cannot see in the store."""
    markers = np.zeros(0) if site.volume_marker is None else marker_onsets(raw, site.volume_marker)
    factor = next((float(step["factor"]) for step in eeg.steps if "factor" in step), 1.0)
    return {
        "n_file_channels": len(raw.ch_names),
        "markers": {"name": site.volume_marker, **marker_summary(markers, alignment)},
        "published": published_spectrum(raw, eeg.file_names, eeg.montage.ch_names, factor),
    }


def _parcel_summaries(parcels: RawParcels | None) -> dict[str, Any]:
    if parcels is None:
        return {}
    return {
        "dvars_percent": np.round(np.asarray(parcels.dvars_V, np.float64), 3).tolist(),
        "coverage": np.round(np.asarray(parcels.coverage_R, np.float64), 3).tolist(),
    }


def _missing_parcels(parcellation: Parcellation, clean: CleanBold) -> list[str]:
    """Parcels that the image does not cover: NaN throughout, and masked in loss and scores."""
    return [parcellation.labels[place] for place in np.flatnonzero(np.isnan(clean.bold_VR).all(axis=0))]


def _scanner(bold: BoldRun, site: Site) -> dict[str, Any]:
    """Maker and field strength (T): the image's sidecar knows better than the site's facts."""
    names = ("manufacturer", "field_strength")
    return {name: bold.facts.get(name) or getattr(site, name) for name in names}


def _check_sfreq(raw: Any, site: Site, files: RecordingFiles) -> None:
    found = float(raw.info["sfreq"])
    if abs(found / site.sfreq - 1) > SFREQ_TOLERANCE:
        raise SiteError(
            f"{files.eeg}: EEG at {found:g} Hz, but site {site.name!r} says {site.sfreq:g} Hz; correct sfreq of the "
            "site, or give these files a site of their own"
        )


def _uncorrected(raw: Any, t_r: float, site: Site) -> str:
    """Why a recording that the site calls corrected must not train: its gradient artifact stands out, or nothing."""
    if site.eeg_state == "raw":
        return ""
    markers = np.zeros(0) if site.volume_marker is None else marker_onsets(raw, site.volume_marker)
    found = scan_evidence(raw, t_r, markers)
    if found.artifact_onset is None and found.artifact_end is None:
        return ""
    return f"the EEG holds the gradient artifact, but the site says eeg_state: {site.eeg_state}; write raw if it is"


def aligned(raw: Any, bold: BoldRun, site: Site, files: RecordingFiles) -> tuple[Alignment, ScanEvidence]:
    """Bring the markers of an EEG and the volumes of its image together, with what the EEG shows of the scan.

    Raises
    ------
    AlignmentError
        As :func:`xsite.signals.align.align`, or the EEG has neither markers nor a policy.
    """
    sfreq = float(raw.info["sfreq"])
    markers = np.zeros(0) if site.volume_marker is None else marker_onsets(raw, site.volume_marker)
    clock: dict[str, Any] = {
        "n_volumes": bold.n_volumes,
        "t_r": bold.t_r,
        "start_time": bold.start_time,
        "eeg_duration": raw.n_times / sfreq,
        "source": str(files.eeg),
        "repairs": [Repair("onset-unit", 1, words) for words in reading_notes(raw)],
    }
    first_onset = published_start(raw, site, files)
    if not len(markers) and first_onset is not None:
        return align_without_markers(first_onset=first_onset, **clock), ScanEvidence()
    found = marker_trains(raw)
    evidence = scan_evidence(
        raw,
        bold.t_r,
        markers,
        protocol_first=first_marker(raw, site.protocol_marker),
        protocol_offset=site.protocol_onset,
        artifact=site.eeg_state == "raw",
    )
    alignment = align(
        markers,
        found_markers={name: len(times) for name, times in found.items()},
        extra_markers=site.extra_markers,
        missing_markers=site.missing_markers,
        triggers_per_volume=site.triggers_per_volume,
        dummy_volumes=site.dummy_volumes,
        sfreq=sfreq,
        decoys={name: times for name, times in found.items() if not is_known(name, site)},
        evidence=evidence,
        first_onset=first_onset,
        breaks=time_breaks(raw),
        discarded=bold.discarded,
        **clock,
    )
    return alignment, evidence


def _alignment_facts(alignment: Alignment, evidence: ScanEvidence, bold: BoldRun) -> dict[str, Any]:
    return {
        "verdict": alignment.verdict,
        "confidence": alignment.confidence,
        "repairs": [asdict(repair) for repair in alignment.repairs],
        "evidence": list(alignment.evidence),
        "scan": asdict(evidence),
        "t_r_found": alignment.t_r_found,
        "jitter_ms": alignment.jitter_ms,
        "start_time": bold.start_time,
    }
