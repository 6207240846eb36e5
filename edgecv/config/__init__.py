"""Device profiles and recipes: frozen dataclasses read from TOML."""
