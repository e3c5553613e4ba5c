"""A consortium of sites with a known truth: simulated EEG-fMRI as BIDS files, or in memory for tests."""

from xsite.phantom.consortium import Consortium, generate_consortium
from xsite.phantom.in_memory import simulate_recordings
from xsite.phantom.oracle import oracle_r
from xsite.phantom.presets import PRESETS, Preset, get_preset

__all__ = ["PRESETS", "Consortium", "Preset", "generate_consortium", "get_preset", "oracle_r", "simulate_recordings"]
