"""What a held-out recording's own EEG may change without any of its BOLD: access level "unlabelled EEG".

===========  =========================================  ==========================================================
name         what is aligned                            where
===========  =========================================  ==========================================================
recenter     offset and gain of each channel            every recording, training ones too
euclidean    covariance between channels (He & Wu)      every recording, training ones too
norm         batch normalisation of the model           the test recording (Li et al. 2018, AdaBN)
features     mean and spread of the model's features    the test recording, to the training ones' (ComBat, re-posed)
===========  =========================================  ==========================================================

All of them see a whole recording before its first volume is predicted. Shapes: ``C`` channels, ``T`` samples, ``W``
windows, ``D`` features.

References
----------
He & Wu, IEEE Trans. Biomed. Eng. 67, 399 (2020): Euclidean alignment. Li et al., Pattern Recognition 80, 109 (2018):
adaptive batch normalisation. Johnson, Li & Rabinovic, Biostatistics 8, 118 (2007): ComBat.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xsite.data.window_source import WindowSource
from xsite.errors import CheckpointError, RecipeError
from xsite.experiment_parts import Adapt
from xsite.recording import Bool

Eeg = NDArray[np.float32]
Alignment = Callable[[Eeg, Bool, Bool], Eeg]
"""(eeg_CT microvolt, usable_C, valid_T) -> aligned eeg_CT; channels that are not usable stay zero."""

AMPLITUDE_UV = 10.0
"""Standard deviation of an aligned channel: models scale microvolts inside, so units are kept plausible."""
SHRINKAGE = 0.02
"""Pull of every eigenvalue to their mean: the weakest direction of a cap is noise, and should be left small."""
NULL = 1e-6
"""Eigenvalues below this share of the largest are directions that the recording does not have."""


UNLABELLED = "unlabelled EEG"


def access_level(adapt: Adapt) -> str:
    """Name of the level in every table's column ``access``, of a model that does nothing more by itself."""
    return "none" if adapt == "none" else UNLABELLED


def reads_whole_recording(model: Any) -> bool:
    """Whether a model compares a window with the whole recording's EEG by itself, whatever ``data.adapt`` says.

    Trained models have ``recording_statistics`` then, closed forms ``reads_whole_recording``: test-time normalisation.
    """
    return hasattr(model, "recording_statistics") or bool(getattr(model, "reads_whole_recording", False))


def recenter(eeg_CT: Eeg, usable_C: Bool, valid_T: Bool) -> Eeg:
    """Each channel without its median, over its own spread (1.4826 times the median absolute deviation).

    Undoes an offset and a gain per channel, whatever they are; a flat channel becomes zero.
    """
    seen_CT = eeg_CT[:, valid_T]
    if not seen_CT.shape[1]:
        return eeg_CT
    middle_C = np.median(seen_CT, axis=1)
    spread_C = 1.4826 * np.median(np.abs(seen_CT - middle_C[:, None]), axis=1)
    gain_C = np.where(usable_C & (spread_C > 0), AMPLITUDE_UV / np.where(spread_C > 0, spread_C, 1.0), 0.0)
    return ((eeg_CT - middle_C[:, None]) * gain_C[:, None]).astype(np.float32)


def euclidean(eeg_CT: Eeg, usable_C: Bool, valid_T: Bool) -> Eeg:
    """Whiten the usable channels by their mean covariance over the recording (He & Wu 2020, eq. 10-11).

    The covariance afterwards is the identity, up to shrinkage, on the directions that the recording has. A gain is
    undone exactly; a mixing of the channels up to a rotation, and wholly where it is symmetric and the sources were
    white. Average-referenced EEG lacks one direction, interpolated channels lack more: those stay zero.
    """
    rows = np.flatnonzero(usable_C)
    seen_CT = eeg_CT[np.ix_(rows, np.flatnonzero(valid_T))].astype(np.float64)
    if not seen_CT.size:
        return eeg_CT
    middle_C1 = seen_CT.mean(1, keepdims=True)
    weights_CC = whitening((seen_CT - middle_C1) @ (seen_CT - middle_C1).T / seen_CT.shape[1])
    aligned_CT = np.zeros_like(eeg_CT, dtype=np.float32)
    aligned_CT[rows] = AMPLITUDE_UV * (weights_CC @ (eeg_CT[rows] - middle_C1)).astype(np.float32)
    return aligned_CT


def whitening(covariance_CC: NDArray[np.float64], shrinkage: float = SHRINKAGE) -> NDArray[np.float64]:
    """Inverse symmetric square root on the directions that are there; shrunk to the mean eigenvalue of those."""
    values_C, vectors_CC = np.linalg.eigh(covariance_CC)
    there_C = values_C > NULL * max(values_C[-1], 0.0)
    if not there_C.any():
        return np.zeros_like(covariance_CC)
    shrunk_C = (1 - shrinkage) * values_C + shrinkage * values_C[there_C].mean()
    inverse_C = np.where(there_C, 1 / np.sqrt(np.where(there_C, shrunk_C, 1.0)), 0.0)
    whitened: NDArray[np.float64] = (vectors_CC * inverse_C) @ vectors_CC.T
    return whitened


def input_alignment(adapt: Adapt) -> Alignment | None:
    """What is done to every recording's EEG once its channels are chosen; None where nothing is."""
    return {"recenter": recenter, "euclidean": euclidean}.get(adapt)


def refit_norms(model: nn.Module, batches: Iterable[Any]) -> tuple[nn.Module, int]:
    """A copy of the model whose batch-normalisation statistics are those of ``batches``, and how many layers it has.

    Layer and group normalisation have no memory and nothing to refit: a model with those alone comes back as it was,
    with the number 0.
    """
    adapted = copy.deepcopy(model).eval()
    layers = [layer for layer in adapted.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a running average over all batches, each counted once
        layer.train()
    if layers:
        with torch.no_grad():
            for batch in batches:
                adapted(batch)
    return adapted.eval(), len(layers)


@dataclass(frozen=True)
class LocationScale:
    """Mean and spread of features within a recording, averaged over training recordings.

    ComBat estimates a site's shift and scale from all its subjects, labels and the test sites included. Here the
    reference is learnt from training recordings alone; a test recording then brings its own unlabelled windows.

    Parameters
    ----------
    mean_D, sd_D : tensors
    n_windows : float
        Weight of the reference, in windows: short recordings are shrunk to it (empirical Bayes in the large).
    """

    mean_D: Tensor
    sd_D: Tensor
    n_windows: float = 20.0

    @classmethod
    def fit(cls, features: Sequence[Tensor]) -> LocationScale:
        """From the features ``z_WD`` of each training recording."""
        mean_D = torch.stack([z_WD.mean(0) for z_WD in features]).mean(0)
        sd_D = torch.stack([z_WD.var(0, correction=0) for z_WD in features]).mean(0).sqrt()
        return cls(mean_D, sd_D)

    def adapt(self, z_WD: Tensor) -> Tensor:
        """Features of one recording, brought to the reference's mean and spread."""
        share = len(z_WD) / (len(z_WD) + self.n_windows)
        mean_D = share * z_WD.mean(0) + (1 - share) * self.mean_D
        var_D = share * z_WD.var(0, correction=0) + (1 - share) * self.sd_D.square()
        scale_D = torch.where(var_D > 1e-12, self.sd_D / var_D.clamp(min=1e-12).sqrt(), 1.0)
        adapted: Tensor = (z_WD - mean_D) * scale_D + self.mean_D
        return adapted


@torch.no_grad()
def features_of(model: Any, batches: Iterable[Any]) -> Tensor:
    """``z_WD`` of all windows of one recording; the model is left in evaluation mode."""
    model.eval()
    return torch.cat([model.features(batch).float() for batch in batches])


def feature_reference(model: nn.Module, state: Mapping[str, Tensor], train: WindowSource) -> dict[str, Any]:
    """:class:`LocationScale` of the training recordings under the weights ``state``, as plain data for a checkpoint."""
    kept = copy.deepcopy(model)
    kept.load_state_dict(state)
    device = next(kept.parameters()).device
    recording_W = train.recording_W.cpu().numpy()
    features = [
        features_of(kept, window_batches(train, device, np.flatnonzero(recording_W == number))).cpu()
        for number in np.unique(recording_W)
    ]
    reference = LocationScale.fit(features)
    return {"mean_D": reference.mean_D.tolist(), "sd_D": reference.sd_D.tolist()}


def window_batches(
    source: WindowSource, device: torch.device | str = "cpu", index_W: Any = None, batch_size: int = 64
) -> Iterator[Any]:
    """Batches of a source's windows in order, or of those in ``index_W``."""
    index_W = np.arange(len(source)) if index_W is None else index_W
    for start in range(0, len(index_W), batch_size):
        yield source.gather(index_W[start : start + batch_size])[0].to(device)


def adapted_outputs(model: nn.Module, source: WindowSource, config: Mapping[str, Any], size: int = 64) -> Tensor:
    """Outputs of one recording's windows, shape (windows, parcels), by a model that has seen its unlabelled EEG.

    Raises
    ------
    CheckpointError
        ``features`` is asked for and the checkpoint holds no reference.
    RecipeError
        ``norm`` is asked for and the model has no batch normalisation.
    """
    device = next(model.parameters()).device
    adapt = config["experiment"]["data"].get("adapt", "none")  # checkpoints of earlier studies know none
    if adapt == "norm":
        model, n_layers = refit_norms(model, window_batches(source, device, batch_size=size))
        if not n_layers:
            raise RecipeError(
                f"data.adapt: norm refits batch normalisation, and {config['model']['name']} has none; use recenter, "
                "euclidean or features"
            )
    with torch.no_grad():
        if adapt != "features":
            return torch.cat([model(batch).float() for batch in window_batches(source, device, batch_size=size)])
        if "feature_reference" not in config:
            raise CheckpointError("data.adapt: features needs a reference that this checkpoint lacks; train it again")
        own = {name: torch.tensor(values, device=device) for name, values in config["feature_reference"].items()}
        z_WD = features_of(model, window_batches(source, device, batch_size=size))
        outputs_WR: Tensor = cast(Any, model).head(LocationScale(own["mean_D"], own["sd_D"]).adapt(z_WD)).float()
        return outputs_WR
