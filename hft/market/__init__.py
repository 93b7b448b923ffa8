"""Raw market data: vendor files or a simulator in, ticks and bars out."""
