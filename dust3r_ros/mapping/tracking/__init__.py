"""One frame against one keyframe: following points, pose, uncertainty, when a keyframe is due."""
