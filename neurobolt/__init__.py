"""NeuroBOLT: EEG windows to fMRI parcels, and its closed-form rivals. Knows torch, numpy and safetensors only."""

from neurobolt.baselines import BaselineRecording, EegRecording, Mean, Ridge, Vigilance, Zero
from neurobolt.batch import Batch, EegBatch
from neurobolt.channels import LABRAM_NAMES, VU_NAMES
from neurobolt.config import NeuroBOLTConfig
from neurobolt.labram_weights import load_labram, to_labram
from neurobolt.model import NeuroBOLT
from neurobolt.published import load_published, to_published
from neurobolt.published_training import TrainingSwitches
from neurobolt.storage import load, save

__all__ = [
    "LABRAM_NAMES",
    "VU_NAMES",
    "BaselineRecording",
    "Batch",
    "EegBatch",
    "EegRecording",
    "Mean",
    "NeuroBOLT",
    "NeuroBOLTConfig",
    "Ridge",
    "TrainingSwitches",
    "Vigilance",
    "Zero",
    "load",
    "load_labram",
    "load_published",
    "save",
    "to_labram",
    "to_published",
]
