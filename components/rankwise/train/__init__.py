"""One trial: train a LoRA adapter with one configuration, measure it, say what it cost.

Nothing heavy is imported here: ``rankwise train --help`` answers without torch.
"""
