"""NeuroBOLT's rivals behind its interface: one architecture per file, written from the publications."""

from neurobolt.rivals import beira, biot, cnn_transformer, eegnet, ffcl, labram, lag_tokens, siren, st_transformer
from neurobolt.rivals.base import Rival, RivalEntry
from neurobolt.rivals.config import RivalConfig

RIVALS: dict[str, RivalEntry] = {
    "labram": RivalEntry(labram.LaBraM, labram.PRESETS, labram.CARD),
    "biot": RivalEntry(biot.BIOT, biot.PRESETS, biot.CARD),
    "ffcl": RivalEntry(ffcl.FFCL, ffcl.PRESETS, ffcl.CARD),
    "cnn-transformer": RivalEntry(cnn_transformer.CNNTransformer, cnn_transformer.PRESETS, cnn_transformer.CARD),
    "st-transformer": RivalEntry(st_transformer.STTransformer, st_transformer.PRESETS, st_transformer.CARD),
    "eegnet": RivalEntry(eegnet.EEGNet, eegnet.PRESETS, eegnet.CARD),
    "beira": RivalEntry(beira.BEIRA, beira.PRESETS, beira.CARD),
    "siren": RivalEntry(siren.Siren, siren.PRESETS, siren.CARD),
    "lag-tokens": RivalEntry(lag_tokens.LagTokens, lag_tokens.PRESETS, lag_tokens.CARD),
}
"""Name in recipes -> (model, presets, card)."""

__all__ = ["RIVALS", "Rival", "RivalConfig", "RivalEntry"]
