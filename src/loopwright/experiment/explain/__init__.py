"""What a setting means, which type and default it has, and what sets its value."""
