"""Raw to clean, arrays in and arrays out: alignment audit, gradient removal, EEG, parcels, BOLD, quality figures.

No BIDS, no store, no cluster: :mod:`xsite.data.prepare` puts these parts together.
"""
