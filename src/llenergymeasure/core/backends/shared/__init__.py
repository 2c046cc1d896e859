"""What several backends need, said once."""
