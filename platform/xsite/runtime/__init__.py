"""The only room that imports Ray: cluster, ingest, training, leave-one-site-out, submission."""
