"""MJCF models, all authored in this project."""
