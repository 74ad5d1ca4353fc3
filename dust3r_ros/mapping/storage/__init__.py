"""Tables that stay small in memory: by index, and on disk."""
