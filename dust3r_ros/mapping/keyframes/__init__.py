"""The keyframes' graph: window, store, loops joined, alignment, self-calibration."""
