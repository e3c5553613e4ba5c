"""Is it microvolt? Files in volt labelled microvolt, and the reverse, are off by powers of a thousand: that shows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xsite.errors import ChannelError
from xsite.recording import Float
from xsite.site import Site

USUAL_UV = (1.0, 200.0)  # median over channels of the robust standard deviation of clean EEG
PLAUSIBLE_UV = (0.1, 2000.0)  # outside of it, nothing is left but a wrong unit or an artifact
FACTORS = (1e-6, 1e-3, 1e3, 1e6)
OUTLYING = 30.0  # a channel this many times larger or smaller than the median one has a unit (or a fault) of its own


def robust_spread(eeg_CT: Float, sfreq: float) -> NDArray[np.float64]:
    """Robust standard deviation around a line through each second, shape (C,): drifts of DC amplifiers do not count."""
    width = max(2, round(sfreq))
    n = max(1, eeg_CT.shape[1] // width)
    spread_C = np.empty(len(eeg_CT))
    for index, channel_T in enumerate(eeg_CT):  # one channel at a time: a copy of all would double the memory
        part = np.asarray(channel_T[: n * width], dtype=np.float64)
        seconds = part.reshape(n, -1) if part.size == n * width else part[None]
        ramp = np.arange(seconds.shape[1]) - (seconds.shape[1] - 1) / 2
        slope = (seconds @ ramp / max(1.0, float(ramp @ ramp)))[:, None]
        spread_C[index] = 1.4826 * np.median(np.abs(seconds - seconds.mean(1, keepdims=True) - slope * ramp))
    return spread_C


def fitting_factor(spread: float) -> float | None:
    """Power of a thousand that brings a spread in microvolt into the usual range; 1 where it is there already.

    The range is narrower than a thousand, so at most one fits; ``None`` where none does.
    """
    fits = [factor for factor in (1.0, *FACTORS) if USUAL_UV[0] <= spread * factor <= USUAL_UV[1]]
    return fits[0] if fits else None


def correct_unit(eeg_CT: Float, sfreq: float, site: Site, ch_names: tuple[str, ...], source: str) -> dict[str, Any]:
    """Apply the site's ``eeg_scale`` in place and check what comes out.

    Returns
    -------
    dict
        The step: factor, spread in microvolt, whether it is usual, outlying channels.

    Raises
    ------
    ChannelError
        The robust standard deviation is outside 0.1 to 2000 microvolt; the message says which factor would fit.
    """
    spread_C = robust_spread(eeg_CT, sfreq)
    spread = float(np.median(spread_C))
    factor, evidence = 1.0, "as the file says"
    if site.eeg_scale == "detect":
        factor = fitting_factor(spread) or 1.0
        evidence = f"detected: {spread:.3g} µV times {factor:g} is usual for EEG" if factor != 1 else evidence
    elif site.eeg_scale is not None:
        factor, evidence = float(site.eeg_scale), "fact of the site (eeg_scale)"
    if factor != 1:
        eeg_CT *= np.float32(factor)
        spread, spread_C = spread * factor, spread_C * factor
    if not PLAUSIBLE_UV[0] <= spread <= PLAUSIBLE_UV[1]:
        fitting = fitting_factor(spread)
        hint = (
            f"; times {fitting:g} it would be usual: if that is so, write eeg_scale: {fitting * factor:g} into the "
            "facts of the site"
            if fitting is not None
            else ""
        )
        raise ChannelError(
            f"{source}: the robust standard deviation of the channels is {spread:.3g} µV (median), outside "
            f"{PLAUSIBLE_UV[0]:g} to {PLAUSIBLE_UV[1]:g}; the unit is probably wrong (volt read as microvolt), or an "
            f"artifact was left in{hint}"
        )
    step: dict[str, Any] = {"step": "unit", "factor": factor, "evidence": evidence, "robust_sd_uv": spread}
    step["usual"] = USUAL_UV[0] <= spread <= USUAL_UV[1]
    step["outlying"] = [
        f"{name} {own:.3g} µV"
        for name, own in zip(ch_names, spread_C, strict=True)
        if own > OUTLYING * spread or own * OUTLYING < spread
    ]
    return step
