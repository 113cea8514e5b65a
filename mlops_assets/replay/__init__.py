"""The time machine: any policy over the stored history of a model, beside what happened."""
