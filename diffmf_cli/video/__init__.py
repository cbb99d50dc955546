"""Videos and picture sequences as streams of frames: read, matched in time, fused, written. No torch here."""
