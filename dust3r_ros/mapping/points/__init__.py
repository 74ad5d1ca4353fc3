"""The map's points: voxels, tiles, views of keyframes, and what a saved map holds."""
