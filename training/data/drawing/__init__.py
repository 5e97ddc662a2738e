"""Drawn pedestrians and the places they walk through, for `training.data.synthetic`."""
