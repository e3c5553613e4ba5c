"""What one opened recording tells about its site: markers, gradient artifact, mains, channels, units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError

from xsite.data.bids import read_eeg
from xsite.data.check_parts import MAX_LEFT_UV, spread_uv
from xsite.data.files import check_file
from xsite.data.marker_looks import MarkerLook, look_at, look_at_events, ranked
from xsite.data.markers import marker_trains
from xsite.data.site_file import Fact
from xsite.errors import FormatError
from xsite.recording import Float
from xsite.signals.channel_names import bipolar_pair, egi_net, egi_number, is_electrode
from xsite.signals.channel_types import decide_types, has_location
from xsite.signals.line_frequency import measured_line_frequency
from xsite.signals.scan_evidence import ScanEvidence, scan_evidence
from xsite.signals.units import PLAUSIBLE_UV, fitting_factor, robust_spread
from xsite.site import RecordingFiles, Site

QUIET_S = 10.0


@dataclass(frozen=True, eq=False)
class Look:
    """One recording, opened.

    Parameters
    ----------
    files : RecordingFiles
    raw : mne.io.BaseRaw
    sfreq : float
    n_volumes : int
    markers : list of MarkerLook
        The likeliest volume markers first.
    trains : mapping of str to array
        Onsets of the file's own markers.
    evidence : ScanEvidence
    """

    files: RecordingFiles
    raw: Any
    sfreq: float
    n_volumes: int
    markers: list[MarkerLook]
    trains: dict[str, Float]
    evidence: ScanEvidence

    @property
    def scan(self) -> tuple[float, float] | None:
        """First and last volume marker in seconds; ``None`` where no marker of the file looks like one."""
        times = self.trains.get(self.markers[0].name) if self.markers else None
        if times is None or self.markers[0].likeness == "event" or not len(times):
            return None
        return float(times.min()), float(times.max())


def look_at_recording(files: RecordingFiles, site: Site) -> Look:
    """Open one recording and judge its markers against its image.

    Raises
    ------
    FormatError
        The EEG or the image cannot be read.
    """
    raw = read_eeg(files, site)
    try:
        shape = nib.load(check_file(files.bold)).shape
    except (ImageFileError, OSError) as error:
        raise FormatError(f"{files.bold}: not a readable NIfTI image ({error}); fetch it again") from error
    n_volumes = int(shape[3]) if len(shape) == 4 else 1
    sfreq = float(raw.info["sfreq"])
    trains = marker_trains(raw)
    markers = look_at(trains, n_volumes, site.t_r)
    there = {look.name.rpartition("/")[2] for look in markers}
    table = look_at_events(files.eeg, sfreq, n_volumes, site.t_r)
    markers = ranked([*markers, *(m for m in table if m.name.rpartition("/")[2] not in there)], n_volumes)
    best = trains.get(markers[0].name) if markers else None
    return Look(files, raw, sfreq, n_volumes, markers, trains, scan_evidence(raw, site.t_r, best))


def eeg_state_fact(look: Look) -> Fact:
    """Raw where the gradient artifact is seen to begin or end, or where the EEG repeats with the TR throughout."""
    seen = look.evidence
    times = [
        f"{what} {at:.2f} s"
        for what, at in (("from", seen.artifact_onset), ("to", seen.artifact_end))
        if at is not None
    ]
    if times:
        return Fact("eeg_state", "raw", f"raw, gradient-corrected or clean: the artifact is seen {' '.join(times)}")
    spread = spread_uv(look.raw)
    if spread > MAX_LEFT_UV:
        how = f"raw, gradient-corrected or clean: {spread:.0f} µV in the middle of the file is more than EEG has"
        return Fact("eeg_state", "raw", how, certain=False)
    how = (
        "raw, gradient-corrected or clean: no gradient artifact is seen to begin or end, and amplitudes are those of "
        "EEG. Write `clean` if the pulse artifact was removed too"
    )
    return Fact("eeg_state", "gradient-corrected", how, certain=False)


def line_fact(look: Look, stated: Any) -> Fact:
    """Mains frequency by the spectrum, else by the sidecar."""
    measured = measured_line_frequency(look.raw, look.scan)
    says = f"; the sidecar says {stated:g}" if isinstance(stated, int | float) else ""
    if measured.freq is not None:
        agrees = not says or abs(stated - measured.freq) < 1
        return Fact("line_freq", measured.freq, f"mains in Hz, measured: {measured.words}{says}", certain=agrees)
    value = float(stated) if stated in (50, 60) else 50.0
    return Fact("line_freq", value, f"mains in Hz: not to be seen ({measured.words}){says}", certain=bool(says))


def channel_facts(look: Look, site: Site) -> list[Fact]:
    """Channels whose type the file has wrong, or whose name is no electrode."""
    verdicts = decide_types(look.raw, site)
    types = {v.file_name.strip(): v.kind for v in verdicts if v.corrected and v.kind != "eeg"}
    eeg = [v for v in verdicts if v.kind == "eeg"]
    net = egi_net([v.name for v in eeg])
    unknown = [
        v.file_name
        for v in eeg
        if not (is_electrode(v.name) or has_location(look.raw, v.file_name) or (net and egi_number(v.name) is not None))
    ]
    pairs = [name for name in unknown if bipolar_pair(name) is not None]
    unknown = [name for name in unknown if len(pairs) <= 3 or name not in pairs]
    facts = []
    if types or unknown:
        how = "MNE types of channels that are not EEG: "
        how += "; ".join(f"{v.file_name.strip()}: {v.evidence}" for v in verdicts if v.file_name.strip() in types)
        if unknown:
            how += f" no electrode of these names is known, so that they are left out: {', '.join(unknown)}"
        types |= {name.strip(): "misc" for name in unknown}
        facts.append(Fact("ch_types", types, how, certain=not unknown))
    if len(pairs) > 3:
        how = f"{len(pairs)} channels are pairs of electrodes: such EEG is read, but cannot be trained on"
        facts.append(Fact("unusable", "bipolar pairs: the potential of no electrode is known", how, certain=False))
    return facts


def scale_fact(look: Look, site: Site) -> list[Fact]:
    """Factor to microvolt where the file's values cannot be microvolt."""
    names = [v.file_name for v in decide_types(look.raw, site) if v.kind == "eeg"]
    start = 0.0 if look.scan is None or look.scan[0] >= QUIET_S else look.scan[1]
    first, stop = round(start * look.sfreq), round((start + QUIET_S) * look.sfreq)
    if not names or stop > look.raw.n_times:
        return []
    quiet_CT = look.raw.get_data(picks=names, start=first, stop=stop) * 1e6
    spread = float(np.median(robust_spread(quiet_CT, look.sfreq)))
    if PLAUSIBLE_UV[0] <= spread <= PLAUSIBLE_UV[1]:
        return []
    factor = fitting_factor(spread)
    if factor is None:
        return []
    how = f"the EEG's spread is {spread:.3g} µV as the file says; times {factor:g} it would be usual"
    return [Fact("eeg_scale", factor, how, certain=False)]
