"""The starter model, from nothing: lessons and texts -> tokenizer -> weights."""
