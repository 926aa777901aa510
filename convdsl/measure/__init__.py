"""What this machine reaches, measured, and what follows for the steps of a program."""
