"""The commands after ``loopwright``, such as ``resume``: one module for each, and `entry`, which calls them."""
