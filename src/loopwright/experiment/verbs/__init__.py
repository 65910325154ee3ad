"""The commands after ``loopwright``, such as ``resume``. Each has a module, and the module `entry` calls them."""
