"""Pages of the project, and the command that writes the generated ones."""
