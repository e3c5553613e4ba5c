"""Phantoms of real sites: a published data set's layout, names, formats and faults around simulated recordings."""

from xsite.phantom.like.plan import EventTable, LikeRun, LikeSite, MarkerTrain, TriggerFault
from xsite.phantom.like.truth import LikeTruth
from xsite.phantom.like.write import expected_bytes, write_like

__all__ = [
    "EventTable",
    "LikeRun",
    "LikeSite",
    "LikeTruth",
    "MarkerTrain",
    "TriggerFault",
    "expected_bytes",
    "write_like",
]
