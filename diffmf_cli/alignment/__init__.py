"""Where an infrared picture lies in a visible one of the same scene."""
