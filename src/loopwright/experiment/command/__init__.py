"""The words after ``loopwright`` and what is said in answer."""
