"""Several cameras on one body."""
