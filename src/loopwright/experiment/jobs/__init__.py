"""A job: its settings, the objects built from it, its checks and its plan; jobs that runs recorded."""
