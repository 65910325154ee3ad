"""The commands after ``loopwright``, such as ``resume``. Each command has a module, which the module `entry` calls."""
