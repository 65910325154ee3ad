"""The verbs of the command line, one module each, and `entry`, which chooses among them."""
