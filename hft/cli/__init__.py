"""One file per subcommand of `hft`."""
