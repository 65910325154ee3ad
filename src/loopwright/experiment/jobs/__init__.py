"""Classes and functions that check jobs and build their objects and plans. A job is one configuration to run."""
