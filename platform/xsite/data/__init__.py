"""The shared format and the way into it: BIDS readers, preparation, store, harmonisation, windows, sampling."""
