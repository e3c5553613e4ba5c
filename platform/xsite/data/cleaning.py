"""The EEG of one recording from its file to the shared format: which artifacts are removed, in which order.

Gradient artifact at the file's rate, because it reaches beyond 1 kHz and would alias; then 200 Hz; loops before the
pulse artifact, because movement disturbs the averages of beats. What lies in the loops and in the ECG comes along.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from xsite.errors import ChannelError, SiteError
from xsite.recording import Float
from xsite.signals.align import Alignment
from xsite.signals.beats import beats_from_ecg, beats_from_eeg
from xsite.signals.eeg import CleanEeg, clean_eeg
from xsite.signals.gradient import remove_gradient
from xsite.signals.loops import regress_loops
from xsite.signals.montage import type_from_name
from xsite.signals.pulse import DELAY_S, PulseMethod, remove_pulse
from xsite.site import Site

logger = logging.getLogger(__name__)


def cleaned(
    raw: Any, alignment: Alignment, t_r: float, site: Site, *, sfreq: float, source: str
) -> tuple[CleanEeg, list[dict[str, Any]]]:
    """Clean EEG and all steps in their order.

    Parameters
    ----------
    raw : mne.io.BaseRaw
    alignment : Alignment
    t_r : float
        Repetition time in seconds.
    site : Site
        ``eeg_state`` "raw" means that the gradient artifact is removed; ``residual``, ``loops`` and ``pulse`` say the
        rest.
    sfreq : float
        Of the shared format, in Hz.
    source : str
        File name for messages.

    Raises
    ------
    ChannelError
        Channels cannot be used (:func:`xsite.signals.eeg.clean_eeg`).
    AlignmentError
        The gradient artifact cannot be removed (:func:`xsite.signals.gradient.remove_gradient`).
    SiteError
        Loops that the site lists are not in the file.
    """
    loops = _loops(raw, site, source)
    ecgs = _ecgs(raw, site) if site.pulse != "none" else []
    valid_T, steps = None, list[dict[str, Any]]()
    if site.eeg_state == "raw":
        triggers = alignment.triggers[alignment.volume_valid]  # without those that the audit put into a broken hole
        raw, valid_T, steps = remove_gradient(
            raw, triggers, t_r, residual=site.residual, trend="kept", also=[*loops, *ecgs], source=source
        )
    eeg = clean_eeg(raw, site, sfreq=sfreq, valid_T=valid_T, beside=[*loops, *ecgs], source=source)
    steps = [*steps, *eeg.steps]
    if loops:
        loops_LT = np.stack([eeg.beside[name] for name in loops])
        left_CT, step = regress_loops(eeg.eeg_CT, loops_LT, sfreq, source=source)
        eeg = replace(eeg, eeg_CT=left_CT)
        steps.append({**step, "ch_names": loops})
    if site.pulse != "none":
        left_CT, step = _without_pulse(eeg, {name: eeg.beside[name] for name in ecgs}, site.pulse, source)
        eeg = replace(eeg, eeg_CT=left_CT)
        steps.append(step)
    return replace(eeg, steps=steps, beside={}), steps


def _loops(raw: Any, site: Site, source: str) -> list[str]:
    by_name = {name.strip(): name for name in raw.ch_names}
    missing = [name for name in site.loops if name.strip() not in by_name]
    if missing:
        raise SiteError(f"{source}: loops {missing} of site {site.name!r} are not in the file; it has {raw.ch_names}")
    return [by_name[name.strip()] for name in site.loops]


def _ecgs(raw: Any, site: Site) -> list[str]:
    kinds = zip(raw.ch_names, raw.get_channel_types(), strict=True)
    return [name for name, kind in kinds if (site.ch_types.get(name.strip()) or type_from_name(name) or kind) == "ecg"]


def _without_pulse(
    eeg: CleanEeg, ecgs: dict[str, Float], method: PulseMethod, source: str
) -> tuple[Float, dict[str, Any]]:
    """Beats from the first ECG that shows them, else from the EEG; a recording without either is kept as it is."""
    problems: list[str] = []
    for name, ecg_T in ecgs.items():
        try:
            beats = beats_from_ecg(ecg_T, eeg.sfreq, source=f"{source}, {name}")
            left_CT, step = remove_pulse(eeg.eeg_CT, beats, eeg.sfreq, method=method, delay_s=DELAY_S, source=source)
        except ChannelError as error:
            problems.append(str(error))
        else:
            return left_CT, {**step, "beats_from": name}
    try:
        beats, name = beats_from_eeg(eeg.eeg_CT, eeg.montage.ch_names, eeg.sfreq, source=source)
        left_CT, step = remove_pulse(eeg.eeg_CT, beats, eeg.sfreq, method=method, delay_s=0.0, source=source)
    except ChannelError as error:
        problems.append(str(error))
    else:
        return left_CT, {**step, "beats_from": name, "why_no_ecg": problems or ["no ECG channel"]}
    logger.warning("%s: pulse artifact not removed: %s", source, "; ".join(problems))
    return eeg.eeg_CT, {"step": "pulse artifact left in", "why": problems}
