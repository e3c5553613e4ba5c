"""Channel orders that several sites share, as their files spell them."""

from __future__ import annotations

_BC31 = "Fp1 Fp2 F3 F4 C3 C4 P3 P4 O1 O2 F7 F8 T7 T8 P7 P8 Fz Cz Pz Oz FC1 FC2 CP1 CP2 FC5 FC6 CP5 CP6 TP9 TP10 POz"
_BC64_REST = (
    "F1 F2 C1 C2 P1 P2 AF3 AF4 FC3 FC4 CP3 CP4 PO3 PO4 F5 F6 C5 C6 P5 P6 AF7 AF8 FT7 FT8 TP7 TP8 PO7 PO8 "
    "FT9 FT10 Fpz CPz"
)
BC31: tuple[str, ...] = tuple(_BC31.split())
"""EEG channels of Brain Products' BrainCap MR 32; the ECG is channel 32."""
BC64: tuple[str, ...] = (*BC31, "ECG", *_BC64_REST.split())
"""BrainCap MR 64: 63 EEG channels, ECG as channel 32."""


def eeg_only(ch_names: tuple[str, ...], others: tuple[str, ...] = ("ECG",)) -> tuple[str, ...]:
    """Channels that are EEG, in the file's order."""
    return tuple(name for name in ch_names if name not in others)
