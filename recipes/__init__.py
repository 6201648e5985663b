"""How the models that come with Outcrop were made."""
