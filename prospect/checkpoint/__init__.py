"""A run's folder on disk: resume state, exported models, the manifest."""
