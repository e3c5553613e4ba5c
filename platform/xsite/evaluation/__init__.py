"""Who is tested on whom, and what the scores are worth: folds, metrics, nulls, tables."""
