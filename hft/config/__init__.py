"""What Hydra composed in, one typed config or one list of mistakes out."""
