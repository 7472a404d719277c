"""Configurations as language: prompts, the frozen encoder, and its cache. Import from the modules."""
