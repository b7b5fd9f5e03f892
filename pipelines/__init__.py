"""The stages: the only place where the science, Ray and MLflow meet."""
