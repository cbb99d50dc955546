"""Pictures as arrays: reading, writing, value ranges, colour and size. No torch here."""
