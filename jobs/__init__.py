"""Entry points: the only place where the model, the sites and the platform meet."""
