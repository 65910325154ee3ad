"""Modules that carry out the commands of ``loopwright``, such as ``resume``. The module `entry` selects the command."""
