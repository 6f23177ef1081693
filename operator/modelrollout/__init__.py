"""ModelRollout: safe model swaps for image-generation services on Kubernetes."""
