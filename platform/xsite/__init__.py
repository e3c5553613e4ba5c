"""Cross-site: everything of the platform that is not the model."""
