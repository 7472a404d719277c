"""A table of real LoRA runs: its builder, its loader and its data card (``CARD.md``)."""
