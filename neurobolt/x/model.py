"""neurobolt-x: log band power of electrodes and of learned spatial filters, then a haemodynamic kernel per parcel.

The electrode path is what ridge regression on lagged band power sees, with the lags tied to one kernel per parcel.
Shape letters: ``B`` windows, ``C`` channels, ``T`` samples, ``L`` lags, ``F`` bands, ``K`` filters, ``E`` width,
``R`` parcels, ``S`` statistics of a channel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neurobolt.batch import Batch, EegBatch
from neurobolt.cards import ModelCard
from neurobolt.channels import Unseen
from neurobolt.inference import ArrayOrTensor, predict_windows
from neurobolt.rivals.base import Rival, RivalEntry, may_be_padded
from neurobolt.rivals.config import RivalConfig
from neurobolt.x.config import PRESETS, NeuroBOLTXConfig
from neurobolt.x.electrodes import Electrodes, ElectrodeWeights, electrode_index
from neurobolt.x.heads import FreeHead, HaemodynamicHead
from neurobolt.x.spectra import Spectra, Statistics, unpacked

_SPREAD_FLOOR = 1e-3  # a constant feature says nothing and must not be blown up
_FILTER_SPREAD = 0.7  # typical SD of the log of a bin's band power against its mean, in the stead of a measured one


class PlacedBatch(NamedTuple):
    """Windows with what neurobolt-x can use beside them; shapes as the names say, statistics from the model."""

    eeg_BCT: Tensor
    ch_index_BC: Tensor
    position_BC3: Tensor
    statistics_BCS: Tensor


class NeuroBOLTX(Rival):
    """EEG windows of any montage to parcels.

    A batch may carry ``position_BC3`` (else places come from the channels' names) and ``statistics_BCS`` (else each
    window is compared with itself, which loses what changes more slowly than a window).

    Parameters
    ----------
    config : NeuroBOLTXConfig

    Examples
    --------
    >>> model = NeuroBOLTX(NeuroBOLTXConfig(n_outputs=16))
    >>> model.predict(np.zeros((2, 3, 3200), np.float32), ["Cz", "O1", "Iz"]).shape
    (2, 16)
    """

    config_class: ClassVar[type[RivalConfig]] = NeuroBOLTXConfig
    undecayed: ClassVar[tuple[str, ...]] = ("parcel_embedding",)

    def __init__(self, config: NeuroBOLTXConfig) -> None:
        super().__init__(config)
        self.spectra = Spectra(config)
        self.electrodes = Electrodes(config.ch_names)
        n_names, n_features = len(config.ch_names), config.n_bands
        self.readout = ElectrodeWeights(n_names, n_features * config.embed_dim, positions=config.positions, std=0.02)
        n_mixed = config.n_filters * n_features
        self.filters: ElectrodeWeights | None = None
        if config.n_filters:
            n_weights = config.n_bands * config.n_filters
            self.filters = ElectrodeWeights(n_names, n_weights, positions=config.positions, std=1.0)
            self.filter_readout = nn.Linear(n_mixed, config.embed_dim, bias=False)
            nn.init.normal_(self.filter_readout.weight, std=0.02)
        self.output = _head(config)

    @property
    def reads_positions(self) -> bool:
        """Whether :meth:`channel_index` takes ``placed``: electrodes without a known name, read by their place."""
        return bool(self.config.positions) and self.config.unseen_channels == "error"

    def channel_index(
        self, ch_names: Sequence[str], unseen: Unseen | None = None, *, placed: Sequence[str] = ()
    ) -> Tensor:
        """Index of each channel, shape (C,), int64.

        With positions, any 10-20 or 10-10 name is known by its place, and any name at all that stands in ``placed``:
        then the batch must carry its position. Without, only the vocabulary is. ``unseen="nearest"`` (or
        ``unseen_channels`` of the configuration) lets an untrained electrode speak with the voice of the nearest
        trained one, as in every model.

        Raises
        ------
        ValueError
            Unknown names, or one electrode under two names.
        """
        if self.reads_positions and unseen is None:
            return torch.tensor(electrode_index(ch_names, self.ch_names, placed=placed), dtype=torch.int64)
        return super().channel_index(ch_names, unseen)

    @torch.no_grad()
    def recording_statistics(self, eeg_CT: Tensor, ch_index_C: Tensor, valid_T: Tensor) -> Tensor:
        """What a batch carries as ``statistics_BCS`` for windows of this recording, shape (C, S).

        Parameters
        ----------
        eeg_CT : tensor, shape (C, T)
            Microvolt; the whole recording.
        ch_index_C : int64 tensor, shape (C,)
            -1 marks padding.
        valid_T : bool tensor, shape (T,)
            False where samples must not be used.
        """
        device = self.spectra.scale_N.device  # recordings may lie elsewhere
        known_CT = eeg_CT.to(device).float().masked_fill(ch_index_C.to(device).unsqueeze(-1) < 0, 0.0)
        return self.spectra.of_recording(known_CT, valid_T.to(device)).packed()[0].to(eeg_CT.device)

    @torch.no_grad()
    def statistics_of_windows(self, eeg_BCT: Tensor, ch_index_BC: Tensor) -> Tensor:
        """``statistics_BCS`` from many windows of one recording, for who has nothing else; the same for all of them."""
        return self.spectra.of_windows(self.bins(EegBatch(eeg_BCT, ch_index_BC)), together=True).packed()

    def bins(self, batch: Batch) -> Tensor:
        """Cross-spectra of a batch's windows (B, F, L, C, C): everything that holds no weight.

        Raises
        ------
        ValueError
            Windows of another length, or an index of another shape.
        """
        eeg_BCT = batch.eeg_BCT
        if eeg_BCT.ndim != 3 or eeg_BCT.shape[2] != self.config.n_times or eeg_BCT.shape[:2] != batch.ch_index_BC.shape:
            raise ValueError(
                f"eeg has shape {tuple(eeg_BCT.shape)} and ch_index {tuple(batch.ch_index_BC.shape)}; expected "
                f"(windows, channels, {self.config.n_times}) and (windows, channels)"
            )
        with torch.no_grad(), torch.autocast(eeg_BCT.device.type, enabled=False):  # squares in bfloat16 would be coarse
            x_BCT = eeg_BCT.float()
            if may_be_padded(batch):  # a weight of 0 would not silence NaN
                x_BCT = x_BCT.masked_fill((batch.ch_index_BC < 0).unsqueeze(-1), 0.0)
            cross_BFLCC: Tensor = self.spectra(x_BCT)
        return cross_BFLCC

    def features(self, batch: Batch) -> Tensor:
        """Representation (B, L x E) that the head reads."""
        return self.represent(self.bins(batch), batch)

    def represent(self, cross_BFLCC: Tensor, batch: Any) -> Tensor:
        """:meth:`features` from :meth:`bins`; of ``batch`` only what stands beside the EEG is read."""
        ch_index_BC = batch.ch_index_BC.long()
        position_BC3 = self.electrodes(ch_index_BC, getattr(batch, "position_BC3", None))
        placed_BC = (ch_index_BC < len(self.ch_names)) | (position_BC3 != 0).any(-1)
        where = (ch_index_BC, position_BC3, (ch_index_BC >= 0) & placed_BC)
        given = getattr(batch, "statistics_BCS", None)
        if given is None or given.shape[-1] == 0:
            statistics = self.spectra.of_windows(cross_BFLCC, together=False)
        else:
            statistics = unpacked(given, self.config.n_bands, self.config.n_bands)
        lag_BLE = self._linear(cross_BFLCC, statistics, *where)
        if self.filters is not None:
            lag_BLE = lag_BLE + self.filter_readout(self._mixed(cross_BFLCC, statistics, *where))
        return lag_BLE.flatten(1)

    def _linear(
        self, cross: Tensor, statistics: Statistics, ch_index_BC: Tensor, position_BC3: Tensor, valid_BC: Tensor
    ) -> Tensor:
        """Features of every electrode, weighted by name and place and summed: (B, L, E)."""
        feature_BCLF = self.spectra.features(self.spectra.power(cross))
        if self.config.recording_norm:
            spread_BCF = statistics.spread_BCF
            wide_BCF = torch.where(spread_BCF > _SPREAD_FLOOR, spread_BCF, torch.inf)
            feature_BCLF = (feature_BCLF - statistics.mean_BCF.unsqueeze(2)) / wide_BCF.unsqueeze(2)
        used_BC = valid_BC.float() / valid_BC.sum(1, keepdim=True).clamp(min=1) * len(self.ch_names) ** 0.5
        used_BC = nn.functional.dropout(used_BC, self.config.dropout, self.training)
        weight_BCO = self.readout(ch_index_BC, position_BC3) * used_BC.unsqueeze(-1)
        # one product over (channels, features); einsum would do the same more slowly
        input_BLI = feature_BCLF.permute(0, 2, 1, 3).flatten(2)
        linear_BLE: Tensor = input_BLI @ weight_BCO.unflatten(-1, (self.config.n_bands, -1)).flatten(1, 2)
        return linear_BLE

    def _mixed(
        self, cross: Tensor, statistics: Statistics, ch_index_BC: Tensor, position_BC3: Tensor, valid_BC: Tensor
    ) -> Tensor:
        """Features of the spatial filters' outputs against the whole recording's power: (B, L, K x F)."""
        assert self.filters is not None
        weight_BCO = self.filters(ch_index_BC, position_BC3) * valid_BC.unsqueeze(-1)
        filters_BFCK = weight_BCO.unflatten(-1, (self.config.n_bands, -1)).transpose(1, 2)
        power_BKLF = self.spectra.filtered_power(cross, filters_BFCK)
        if self.config.recording_norm:
            usual_BK1F = self.spectra.filtered_power(
                statistics.cross_BCFC.permute(0, 2, 1, 3).unsqueeze(2), filters_BFCK
            )
            power_BKLF = power_BKLF / (usual_BK1F + _SPREAD_FLOOR**2)
        feature_BKLF = self.spectra.features(power_BKLF) / _FILTER_SPREAD
        return feature_BKLF.permute(0, 2, 1, 3).flatten(2)

    def predict(
        self,
        eeg_BCT: ArrayOrTensor,
        ch_names: Sequence[str],
        *,
        unseen: Unseen | None = None,
        position_C3: NDArray[np.floating[Any]] | None = None,
    ) -> ArrayOrTensor:
        """BOLD of windows of named channels of **one recording**, in evaluation mode.

        All windows of a call together stand for the recording whose power each of them is compared with: give many.

        Parameters
        ----------
        eeg_BCT : float32 array or tensor, shape (B, C, T)
            Microvolt at ``sfreq``.
        ch_names : sequence of str, length C
            In any order; names outside the 10-20 and 10-10 systems need a position.
        unseen : {"error", "nearest"}, optional
            As for :meth:`channel_index`.
        position_C3 : array, shape (C, 3), optional
            Direction of each electrode from the middle of the head (right, front, up); zeros where unknown.

        Returns
        -------
        float32 array or tensor, shape (B, R)
            The kind of ``eeg_BCT``.

        Raises
        ------
        ValueError
            Wrong shape, unknown channels without a position, values that are not finite or look like volt.
        """
        given_C3 = torch.zeros(len(ch_names), 3) if position_C3 is None else torch.as_tensor(position_C3).float()
        if given_C3.shape != (len(ch_names), 3):
            raise ValueError(f"position_C3 has shape {tuple(given_C3.shape)}; expected ({len(ch_names)} channels, 3)")
        placed = [name for name, row in zip(ch_names, given_C3, strict=True) if bool(row.any())]
        index_C = self.channel_index(ch_names, unseen, placed=placed)
        return predict_windows(_OneRecording(self, given_C3), eeg_BCT, index_C)

    def with_parcellation(self, n_outputs: int) -> NeuroBOLTX:
        """A copy for other parcels: everything but ``output`` keeps its weights, ``output`` starts anew."""
        fresh = type(self)(self.config.with_options(n_outputs=n_outputs))
        state = {name: value for name, value in self.state_dict().items() if not name.startswith("output.")}
        fresh.load_state_dict(state, strict=False)
        return fresh.to(self.electrodes.position_N3.device)


class _OneRecording(nn.Module):
    """Windows of one recording, which stand together for the whole of it."""

    def __init__(self, model: NeuroBOLTX, position_C3: Tensor) -> None:
        super().__init__()
        self.model, self.position_C3 = model, position_C3
        self.train(model.training)

    def forward(self, batch: Batch) -> Tensor:
        eeg_BCT, ch_index_BC = batch.eeg_BCT, batch.ch_index_BC
        position_BC3 = self.position_C3.to(eeg_BCT.device).expand(len(eeg_BCT), -1, -1)
        statistics_BCS = self.model.statistics_of_windows(eeg_BCT, ch_index_BC)
        bold_BR: Tensor = self.model(PlacedBatch(eeg_BCT, ch_index_BC, position_BC3, statistics_BCS))
        return bold_BR


def _head(config: NeuroBOLTXConfig) -> nn.Module:
    if config.haemodynamic:
        return HaemodynamicHead(config.n_outputs, config.embed_dim, config.lags_s)
    return FreeHead(config.n_outputs, config.embed_dim, config.n_bins)


CARD = ModelCard(
    name="neurobolt-x",
    paper="This project (docs/neurobolt_x.md); log power of spatial filters as in Daehne et al., SPoC, NeuroImage 2014",
    year=2026,
    licence_of_the_idea="this project's own",
    differs=("No published original: an extension of NeuroBOLT's task, not of its architecture.",),
)
X = RivalEntry(NeuroBOLTX, PRESETS, CARD)
