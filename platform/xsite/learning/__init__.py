"""Training in plain Python: algorithms, the loop, checkpoints, prediction. Ray and MLflow are strangers here."""
