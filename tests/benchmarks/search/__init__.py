"""How good is a search after 1, 5, 10, 20, 30 trials? Every optimizer on the same tables of real LoRA runs."""
