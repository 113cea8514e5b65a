"""Running the platform: set-up, supervised processes and the launcher of Dagster runs."""
