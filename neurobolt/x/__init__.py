"""neurobolt-x: the published task with positions, lags, log power of a whole recording and spatial filters."""

from neurobolt.x.config import NeuroBOLTXConfig
from neurobolt.x.model import CARD, NeuroBOLTX, PlacedBatch, X

__all__ = ["CARD", "NeuroBOLTX", "NeuroBOLTXConfig", "PlacedBatch", "X"]
