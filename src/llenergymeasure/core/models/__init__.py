"""Models as the configuration names them: where they come from and what shape they have."""
