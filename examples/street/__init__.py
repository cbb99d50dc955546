"""A street, described once in metres, and two cameras that look at it."""
