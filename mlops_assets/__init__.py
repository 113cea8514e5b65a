"""mlops-assets: a closed loop for models in production, declared in one YAML file."""
