"""The configuration of neurobolt-x: sizes, and one switch per addition to the published model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from neurobolt.rivals.config import RivalConfig


@dataclass(frozen=True)
class NeuroBOLTXConfig(RivalConfig):
    """Sizes and switches; ``docs/neurobolt_x.md`` says what each switch is worth.

    Parameters
    ----------
    ch_names, n_outputs, window_s, sfreq, eeg_unit, unseen_channels
        As for every model; 24 s were tried and are not better than the published 16 s.
    remove_mean : bool
        True: no band reaches down to a bin's mean, so there is nothing to switch.
    bin_s, hop_s : float
        Length of the short-time Fourier windows and the step between them, in seconds.
    band_edges_hz : tuple of float
        Edges of the frequency bands, ascending: n + 1 edges make n bands.
    embed_dim : int
        Width of a lag's representation, and of a parcel's embedding.
    positions : bool
        Channel weights depend on the electrode's place beside its name; unseen electrodes may then be given.
    log_power : bool
        Logarithm of power; otherwise its square root.
    recording_norm : bool
        Power is compared with the mean (and, per electrode, the spread) of the whole recording's.
    haemodynamic : bool
        One kernel over lags per parcel that starts as the double-gamma response; otherwise free weights.
    n_filters : int
        Learned spatial filters per band whose log power is a feature too; 0 for none.
    dropout : float
        Share of electrodes that training hides from the linear path at a time.
    """

    model: ClassVar[str] = "neurobolt-x"

    eeg_unit: float = 10.0
    bin_s: float = 2.0
    hop_s: float = 1.0
    band_edges_hz: tuple[float, ...] = (1.0, 4.0, 8.0, 13.0, 30.0, 45.0)
    embed_dim: int = 16
    positions: bool = True
    log_power: bool = True
    recording_norm: bool = True
    haemodynamic: bool = True
    n_filters: int = 8
    dropout: float = 0.1

    def checks(self) -> dict[str, bool]:
        """What must hold beyond the shared conditions."""
        edges = self.band_edges_hz
        return {
            "remove_mean is False, but no band of this model holds a mean; leave the option out": self.remove_mean,
            f"a window of {self.window_s} s holds no bin of {self.bin_s} s": self.window_s >= self.bin_s > 0,
            f"hop_s {self.hop_s} is not whole samples": self.hop_s > 0 and (self.hop_s * self.sfreq).is_integer(),
            f"band_edges_hz {edges} are not ascending, or leave a band without a frequency of {1 / self.bin_s:g} Hz": (
                len(edges) > 1 and all(high - low >= 1 / self.bin_s for low, high in pairwise(edges))
            ),
            f"band_edges_hz begin at {edges[0]} Hz, two steps of {1 / self.bin_s:g} Hz are the least": (
                edges[0] >= 2 / self.bin_s
            ),
            f"band_edges_hz reach {edges[-1]} Hz, half of sfreq is {self.sfreq / 2}": edges[-1] <= self.sfreq / 2,
            f"dropout is {self.dropout}": 0 <= self.dropout < 1,
        }

    @property
    def n_bins(self) -> int:
        """Lags: Fourier windows in one EEG window."""
        return int((self.n_times - round(self.bin_s * self.sfreq)) // round(self.hop_s * self.sfreq)) + 1

    @property
    def n_bands(self) -> int:
        """Frequency bands."""
        return len(self.band_edges_hz) - 1

    @property
    def lags_s(self) -> tuple[float, ...]:
        """Seconds from the middle of each bin to the volume, the longest first."""
        return tuple(self.bin_s / 2 + self.hop_s * back for back in reversed(range(self.n_bins)))


PRESETS: dict[str, dict[str, Any]] = {
    "small": {},
    "base": {"embed_dim": 64, "n_filters": 16},
}
