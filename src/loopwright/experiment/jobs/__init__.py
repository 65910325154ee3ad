"""Jobs: configurations to run, with their settings, objects, checks and plans. Also recorded configurations."""
